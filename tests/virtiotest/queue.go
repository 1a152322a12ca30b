// SPDX-License-Identifier: Apache-2.0

package virtiotest

import (
	"sync/atomic"
	"time"
	"unsafe"

	"npuemu/internal/eventfd"
)

// Bits of a descriptor.
const (
	Next  = 1
	Write = 2
	Table = 4
)

// Queue is a virtqueue as a driver has it, split or packed as was negotiated. Its areas are
// exported for tests that write nonsense into them; Avail and Used of a packed one are its
// driver and device area.
type Queue struct {
	F                 *Front
	Index, Size       int
	Desc, Avail, Used []byte
	DescAddr          uint64
	AvailAddr         uint64
	UsedAddr          uint64
	Call, Kick, Err   *eventfd.FD

	free       []uint16            // descriptors, or buffer ids if packed
	avail      uint16              // next available index
	used       uint16              // next used index
	chains     map[uint16][]uint16 // by head
	EventIndex bool                // accepted

	packed   bool
	slots    int            // packed: descriptors that are free
	at, back position       // packed: next descriptor, next used one
	lengths  map[uint16]int // packed: descriptors by buffer id
}

// Desc is a descriptor.
type Desc struct {
	Addr        uint64
	Len         uint32
	Flags, Next uint16
}

// NewQueue places a queue in guest memory.
func (f *Front) NewQueue(index, size int) *Queue {
	f.T.Helper()
	q := &Queue{F: f, Index: index, Size: size, chains: map[uint16][]uint16{}}
	q.DescAddr, q.Desc = f.Alloc(16 * size)
	q.AvailAddr, q.Avail = f.Alloc(6 + 2*size)
	q.UsedAddr, q.Used = f.Alloc(8 + 8*size)
	q.packed, q.slots, q.lengths = f.packed, size, map[uint16]int{}
	q.at, q.back = position{0, true}, position{0, true}
	for i := range size {
		q.free = append(q.free, uint16(i))
	}
	q.Call, q.Kick, q.Err = NewEventfd(f.T), NewEventfd(f.T), NewEventfd(f.T)
	return q
}

// Fresh is the base of a new queue.
func (q *Queue) Fresh() uint32 {
	if q.packed {
		return 0x8000_8000
	}
	return 0
}

// Begin makes a queue that is not set up yet look as if its indices had come to v. A packed one is
// new.
func (q *Queue) Begin(v uint16) {
	if q.packed {
		return
	}
	q.avail, q.used = v, v
	q.SetAvail(v)
	le.PutUint16(q.Used[2:], v)
	le.PutUint16(q.Avail[4+2*q.Size:], v)
}

// Setup tells the back end of a queue, with the index that it goes on from, but does not
// enable it.
func (q *Queue) Setup(base uint32) {
	q.F.T.Helper()
	q.F.Do(SetVringNum, Pair(uint32(q.Index), uint32(q.Size)))
	q.F.Do(SetVringBase, Pair(uint32(q.Index), base))
	q.F.Do(SetVringAddr, q.Addr())
	q.F.Do(SetVringErr, U64(uint64(q.Index)), q.Err.Fd())
	q.F.Do(SetVringKick, U64(uint64(q.Index)), q.Kick.Fd())
	q.F.Do(SetVringCall, U64(uint64(q.Index)), q.Call.Fd())
}

// Addr is the body of SET_VRING_ADDR.
func (q *Queue) Addr() []byte {
	b := Pair(uint32(q.Index), 0)
	for _, a := range []uint64{q.DescAddr, q.UsedAddr, q.AvailAddr} {
		b = le.AppendUint64(b, a-MemBase+UserBase)
	}
	return le.AppendUint64(b, 0)
}

// Enable enables or disables.
func (q *Queue) Enable(on bool) {
	q.F.T.Helper()
	v := uint32(0)
	if on {
		v = 1
	}
	q.F.Do(SetVringEnable, Pair(uint32(q.Index), v))
}

// Start is NewQueue, Setup and Enable.
func (f *Front) Start(index, size int) *Queue {
	f.T.Helper()
	q := f.NewQueue(index, size)
	q.Setup(q.Fresh())
	q.Enable(true)
	return q
}

// Stop is GET_VRING_BASE.
func (q *Queue) Stop() uint32 {
	q.F.T.Helper()
	b := q.F.Ask(GetVringBase, Pair(uint32(q.Index), 0))
	return le.Uint32(b[4:])
}

// Put stores a descriptor.
func (q *Queue) Put(i int, d Desc) { PutDesc(q.Desc, i, d) }

// PutDesc stores a descriptor in a table.
func PutDesc(table []byte, i int, d Desc) {
	b := table[16*i:]
	le.PutUint64(b, d.Addr)
	le.PutUint32(b[8:], d.Len)
	le.PutUint16(b[12:], d.Flags)
	le.PutUint16(b[14:], d.Next)
}

// NextID returns what Add will return.
func (q *Queue) NextID() uint16 { return q.free[0] }

// Add makes a chain available, and returns its head, or its buffer id if packed.
func (q *Queue) Add(chain ...Desc) uint16 {
	q.F.T.Helper()
	if q.packed {
		return q.addPacked(chain)
	}
	if len(chain) > len(q.free) {
		q.F.T.Fatalf("virtiotest: queue %d is full", q.Index)
	}
	ids := append([]uint16(nil), q.free[:len(chain)]...)
	q.free = q.free[len(chain):]
	for i, d := range chain {
		if i+1 < len(chain) {
			d.Flags |= Next
			d.Next = ids[i+1]
		}
		q.Put(int(ids[i]), d)
	}
	q.chains[ids[0]] = ids
	q.Offer(ids[0])
	return ids[0]
}

// Offer puts a head into the available ring.
func (q *Queue) Offer(head uint16) {
	le.PutUint16(q.Avail[4+2*(int(q.avail)%q.Size):], head)
	q.avail++
	q.SetAvail(q.avail)
}

// SetAvail writes the available index.
func (q *Queue) SetAvail(v uint16) {
	w := (*uint32)(unsafe.Pointer(&q.Avail[0]))
	atomic.StoreUint32(w, atomic.LoadUint32(w)&0xffff|uint32(v)<<16)
}

// UsedIndex reads the used index.
func (q *Queue) UsedIndex() uint16 {
	return uint16(atomic.LoadUint32((*uint32)(unsafe.Pointer(&q.Used[0]))) >> 16)
}

// Await returns the next used element, or false if none comes within the timeout.
func (q *Queue) Await(timeout time.Duration) (head uint16, written uint32, ok bool) {
	if q.packed {
		return q.awaitPacked(timeout)
	}
	for end := time.Now().Add(timeout); q.UsedIndex() == q.used; time.Sleep(20 * time.Microsecond) {
		if time.Now().After(end) {
			return 0, 0, false
		}
	}
	e := q.Used[4+8*(int(q.used)%q.Size):]
	q.used++
	if q.EventIndex {
		le.PutUint16(q.Avail[4+2*q.Size:], q.used) // notify of the next
	}
	head = uint16(le.Uint32(e))
	q.free = append(q.free, q.chains[head]...)
	delete(q.chains, head)
	return head, le.Uint32(e[4:]), true
}

// Request sends in and returns the answer, of room bytes at most.
func (q *Queue) Request(in []byte, room int) []byte {
	q.F.T.Helper()
	head, answer := q.Submit(in, room)
	got, n, ok := q.Await(Timeout)
	if !ok || got != head {
		q.F.T.Fatalf("queue %d: used %d, %v; want %d", q.Index, got, ok, head)
	}
	return answer[:n]
}

// Submit makes a request available and kicks, and returns its head and the buffer of
// its answer.
func (q *Queue) Submit(in []byte, room int) (uint16, []byte) {
	q.F.T.Helper()
	out, answer := q.F.Alloc(room)
	head := q.Add(Desc{Addr: q.F.Put(in), Len: uint32(len(in))}, Desc{Addr: out, Len: uint32(room), Flags: Write})
	q.Kick.Signal()
	return head, answer
}
