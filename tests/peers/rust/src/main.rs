// SPDX-License-Identifier: Apache-2.0

//! Drives a card that `npuemu serve` presents, as docs/spec describes it, through the vfio-user client of rust-vmm,
//! the one that Cloud Hypervisor has. Prints a line for each step that held; the first that does not hold ends the
//! program with status 1.
//!
//! usage: npu-peer SOCKET FIRMWARE

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{fence, Ordering};
use std::time::{Duration, Instant};

use vfio_user::Client;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Fails the step unless the condition holds.
macro_rules! check {
    ($cond:expr, $($text:tt)+) => {
        if !$cond {
            return Err(format!($($text)+).into());
        }
    };
}

// Indexes of linux/vfio.h.
const BAR0: u32 = 0;
const BAR2: u32 = 2;
const BAR4: u32 = 4;
const ROM: u32 = 6;
const CONFIG: u32 = 7;
const MSIX: u32 = 2;

const REGION_MMAP: u32 = 1 << 2; // VFIO_REGION_INFO_FLAG_MMAP
const DATA_NONE_TRIGGER: u32 = 1 << 0 | 1 << 5; // VFIO_IRQ_SET_DATA_NONE, _ACTION_TRIGGER
const DATA_EVENTFD_TRIGGER: u32 = 1 << 2 | 1 << 5; // VFIO_IRQ_SET_DATA_EVENTFD, _ACTION_TRIGGER

// Registers of docs/spec/registers.md.
const ID: u64 = 0x000;
const ARCH_VERSION: u64 = 0x004;
const DOORBELL_OFFSET: u64 = 0x030;
const VECTOR_COUNT: u64 = 0x038;
const DEVICE_STATUS: u64 = 0x104;
const BOOT_CONTROL: u64 = 0x140;
const BOOT_STATUS: u64 = 0x144;
const IMAGE_ADDR_LO: u64 = 0x148;
const IMAGE_SIZE: u64 = 0x150;
const FW_VERSION: u64 = 0x158;
const FW_BUILD: u64 = 0x15c;
const ASQ_BASE_LO: u64 = 0x180;
const ACQ_BASE_LO: u64 = 0x188;
const AQ_SIZE: u64 = 0x190;
const AQ_CONTROL: u64 = 0x194;
const IRQ_STATUS: u64 = 0x1c0;
const IRQ_ENABLE: u64 = 0x1c4;
const FAULT_STATUS: u64 = 0x200;
const FAULT_ADDR_LO: u64 = 0x208;

const MAGIC: u32 = 0x4555_504e;
const RESETTING: u32 = 1 << 1;
const WAITING: u32 = 1;
const READY: u32 = 4;
const IRQ_ADMIN: u32 = 1 << 0;
const IRQ_BOOT: u32 = 1 << 1;
const IRQ_FAULT: u32 = 1 << 2;
const IDENTIFY: u8 = 0x01;

// Guest memory, and what lies where in it.
const IOVA: u64 = 0x1000_0000;
const MEMORY: usize = 8 << 20;
const FILE_OFFSET: u64 = 1 << 20; // guest memory begins here in its file
const SQ: usize = 0x0000;
const CQ: usize = 0x1000;
const BUFFER: usize = 0x2000;
const IMAGE: usize = 0x10_0000;
const ENTRIES: u32 = 4;

const PATIENCE: Duration = Duration::from_secs(20);

/// Memory of a file, mapped shared.
struct Mapping {
    at: *mut u8,
    size: usize,
}

impl Mapping {
    fn new(fd: RawFd, offset: u64, size: usize) -> Result<Mapping> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd, offset as libc::off_t)
        };
        check!(at != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        Ok(Mapping { at: at.cast(), size })
    }

    fn write(&self, offset: usize, data: &[u8]) {
        assert!(offset <= self.size && data.len() <= self.size - offset);
        for (i, b) in data.iter().enumerate() {
            // SAFETY: inside the mapping; volatile, because the device reads it.
            unsafe { self.at.add(offset + i).write_volatile(*b) }
        }
    }

    fn read(&self, offset: usize, size: usize) -> Vec<u8> {
        assert!(offset <= self.size && size <= self.size - offset);
        // SAFETY: inside the mapping; volatile, because the device writes it.
        (0..size).map(|i| unsafe { self.at.add(offset + i).read_volatile() }).collect()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.at.cast(), self.size) };
    }
}

fn owned(fd: RawFd, what: &str) -> Result<OwnedFd> {
    check!(fd >= 0, "{what}: {}", std::io::Error::last_os_error());
    // SAFETY: a fresh descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn eventfd() -> Result<OwnedFd> {
    // SAFETY: no pointers.
    owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }, "eventfd")
}

/// Takes the count of an eventfd, 0 if nothing comes within the timeout.
fn signalled(fd: &OwnedFd, timeout: Duration) -> Result<u64> {
    let mut p = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry.
    if unsafe { libc::poll(&mut p, 1, timeout.as_millis() as libc::c_int) } == 0 {
        return Ok(0);
    }
    let mut count = [0u8; 8];
    File::from(fd.try_clone()?).read_exact(&mut count)?;
    Ok(u64::from_ne_bytes(count))
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(b[at..at + 2].try_into().unwrap())
}

/// The machine that has the card: client, guest memory, and an eventfd for each vector.
struct Machine {
    client: Client,
    memory_file: OwnedFd,
    memory: Mapping,
    vectors: Vec<OwnedFd>,
    tail: u32,
    head: u32,
}

impl Machine {
    fn connect(socket: &Path) -> Result<Machine> {
        let client = Client::new(socket)?;
        // SAFETY: the name is a C string.
        let memory_file = owned(unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) }, "memfd")?;
        // SAFETY: no pointers.
        let grown = unsafe { libc::ftruncate(memory_file.as_raw_fd(), (FILE_OFFSET as usize + MEMORY) as libc::off_t) };
        check!(grown == 0, "ftruncate: {}", std::io::Error::last_os_error());
        let memory = Mapping::new(memory_file.as_raw_fd(), FILE_OFFSET, MEMORY)?;
        Ok(Machine { client, memory_file, memory, vectors: Vec::new(), tail: 0, head: 0 })
    }

    fn read32(&mut self, off: u64) -> Result<u32> {
        let mut b = [0; 4];
        self.client.region_read(BAR0, off, &mut b)?;
        Ok(u32::from_le_bytes(b))
    }

    fn write32(&mut self, off: u64, v: u32) -> Result<()> {
        Ok(self.client.region_write(BAR0, off, &v.to_le_bytes())?)
    }

    fn config16(&mut self, off: u64) -> Result<u16> {
        let mut b = [0; 2];
        self.client.region_read(CONFIG, off, &mut b)?;
        Ok(u16::from_le_bytes(b))
    }

    fn map(&mut self) -> Result<()> {
        Ok(self.client.dma_map(FILE_OFFSET, IOVA, MEMORY as u64, self.memory_file.as_raw_fd())?)
    }

    /// Waits until a register, masked, has a value.
    fn await32(&mut self, off: u64, mask: u32, want: u32) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let v = self.read32(off)?;
            if v & mask == want {
                return Ok(());
            }
            check!(Instant::now() < end, "register {off:#x} is {v:#x}, want {want:#x} in {mask:#x}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for vector 0, and for a cause in IRQ_STATUS, which it clears.
    fn interrupt(&mut self, cause: u32) -> Result<()> {
        check!(signalled(&self.vectors[0], PATIENCE)? > 0, "no interrupt on vector 0 for cause {cause:#x}");
        let status = self.read32(IRQ_STATUS)?;
        check!(status & cause != 0, "IRQ_STATUS is {status:#x} after an interrupt, want {cause:#x}");
        self.write32(IRQ_STATUS, status)
    }

    /// The offset of a PCI capability.
    fn capability(&mut self, id: u8) -> Result<u64> {
        let mut at = self.config16(0x34)? & 0xfc;
        for _ in 0..48 {
            if at == 0 {
                break;
            }
            let v = self.config16(at.into())?;
            if v as u8 == id {
                return Ok(at.into());
            }
            at = v >> 8 & 0xfc;
        }
        Err(format!("no PCI capability {id:#x}").into())
    }

    fn regions(&mut self) -> Result<()> {
        for index in 0..9 {
            let r = self.client.region(index).ok_or("fewer than 9 regions")?;
            let size = match index {
                BAR0 => 1 << 20,
                BAR4 => 16 << 10,
                CONFIG => 4096,
                BAR2 => r.size,
                _ => 0,
            };
            check!(r.size == size, "region {index} has {:#x} bytes, want {size:#x}", r.size);
            let mapped = r.size != 0 && index == BAR2;
            check!((r.flags & REGION_MMAP != 0) == mapped, "region {index} has flags {:#x}", r.flags);
            check!(r.file_offset.is_some() == mapped, "region {index} has a file: {}", r.file_offset.is_some());
            check!(r.sparse_areas.is_empty(), "region {index} has areas; all of BAR2 may be mapped");
        }
        check!(self.client.region(ROM).is_some() && self.client.region(9).is_none(), "not 9 regions");
        // The client has the test of the RESET flag the wrong way round: false says that the device can be reset.
        check!(!self.client.resettable(), "the device cannot be reset");
        Ok(())
    }

    fn registers(&mut self) -> Result<()> {
        check!(self.read32(ID)? == !0, "a register can be read while Memory Space Enable is clear");
        self.client.region_write(CONFIG, 4, &0x0006u16.to_le_bytes())?; // memory space, bus master
        let (id, arch) = (self.read32(ID)?, self.read32(ARCH_VERSION)?);
        check!(id == MAGIC && arch >> 16 == 1, "ID {id:#x}, ARCH_VERSION {arch:#x}");
        for v in [0xffff_ffff, 0x1234_5678, 0] {
            self.write32(IMAGE_SIZE, v)?;
            let got = self.read32(IMAGE_SIZE)?;
            check!(got == v, "IMAGE_SIZE reads {got:#x} after {v:#x}");
        }
        self.write32(ID, 7)?;
        check!(self.read32(ID)? == MAGIC, "ID is not read-only");
        Ok(())
    }

    fn config(&mut self) -> Result<()> {
        let mut all = vec![0; 4096];
        self.client.region_read(CONFIG, 0, &mut all)?;
        let (vendor, device) = (u16_at(&all, 0), u16_at(&all, 2));
        check!(vendor == 0x1af4 && device == 0x10f0, "the function is {vendor:04x}:{device:04x}");
        check!(u32_at(&all, 8) >> 8 == 0x12_0000, "class {:#x}", u32_at(&all, 8) >> 8);
        // Sizing BAR0, as every host does it.
        let before = u32_at(&all, 0x10);
        self.client.region_write(CONFIG, 0x10, &(!0u32).to_le_bytes())?;
        let mut mask = [0; 4];
        self.client.region_read(CONFIG, 0x10, &mut mask)?;
        self.client.region_write(CONFIG, 0x10, &before.to_le_bytes())?;
        check!(u32_at(&mask, 0) == 0xfff0_0004, "BAR0 sizes as {:#x}", u32_at(&mask, 0));
        Ok(())
    }

    fn window(&mut self) -> Result<()> {
        let (fd, start) = {
            let r = self.client.region(BAR2).ok_or("no BAR2")?;
            let f = r.file_offset.as_ref().ok_or("no file for BAR2")?;
            (f.file().as_raw_fd(), f.start())
        };
        let window = Mapping::new(fd, start, 2 << 20)?;
        window.write(0x1000, b"stored by the mapping");
        let mut back = [0; 21];
        self.client.region_read(BAR2, 0x1000, &mut back)?;
        check!(&back == b"stored by the mapping", "a message reads {back:?} where the mapping wrote");
        // 1 MiB in one message, more than libvfio-user's server takes.
        let data: Vec<u8> = (0..1u32 << 20).map(|i| (i * 7 + (i >> 8)) as u8).collect();
        self.client.region_write(BAR2, 0x8_0000, &data)?;
        check!(window.read(0x8_0000, data.len()) == data, "1 MiB written by a message differs in the mapping");
        let mut back = vec![0; data.len()];
        self.client.region_read(BAR2, 0x8_0000, &mut back)?;
        check!(back == data, "1 MiB read by a message differs");
        Ok(())
    }

    /// Attaches an eventfd to every vector, 16 a message as Cloud Hypervisor does, and enables MSI-X.
    fn interrupts(&mut self) -> Result<()> {
        let irq = self.client.get_irq_info(MSIX)?;
        let vectors = self.read32(VECTOR_COUNT)?;
        check!(irq.index == MSIX && irq.count == vectors, "{irq:?}, but VECTOR_COUNT is {vectors}");
        for _ in 0..irq.count {
            self.vectors.push(eventfd()?);
        }
        let fds: Vec<RawFd> = self.vectors.iter().map(|v| v.as_raw_fd()).collect();
        for (i, part) in fds.chunks(16).enumerate() {
            self.client.set_irqs(MSIX, DATA_EVENTFD_TRIGGER, 16 * i as u32, part.len() as u32, part)?;
        }
        let cap = self.capability(0x11)?;
        let control = self.config16(cap + 2)?;
        check!(u32::from(control & 0x7ff) + 1 == vectors, "MSI-X Message Control is {control:#x} with {vectors} vectors");
        self.client.region_write(CONFIG, cap + 2, &(control | 1 << 15).to_le_bytes())?;
        // Self-test: the host triggers every vector, and each comes once.
        self.client.set_irqs(MSIX, DATA_NONE_TRIGGER, 0, vectors, &[])?;
        for (i, v) in self.vectors.iter().enumerate() {
            let n = signalled(v, PATIENCE)?;
            check!(n == 1, "vector {i} came {n} times");
        }
        Ok(())
    }

    fn boot(&mut self, firmware: &[u8]) -> Result<()> {
        self.memory.write(IMAGE, firmware);
        self.await32(DEVICE_STATUS, RESETTING, 0)?;
        self.client.region_write(BAR0, IMAGE_ADDR_LO, &(IOVA + IMAGE as u64).to_le_bytes())?;
        self.write32(IMAGE_SIZE, firmware.len() as u32)?;
        self.write32(IRQ_ENABLE, IRQ_ADMIN | IRQ_BOOT | IRQ_FAULT)?;
        self.write32(BOOT_CONTROL, 1)?;
        self.interrupt(IRQ_BOOT)?;
        let status = self.read32(BOOT_STATUS)?;
        check!(status == READY, "BOOT_STATUS is {status:#x}");
        Ok(())
    }

    fn ring_admin(&mut self) -> Result<()> {
        let base = self.read32(DOORBELL_OFFSET)?;
        self.write32(base.into(), self.tail)
    }

    /// Puts IDENTIFY into the admin queue and rings the doorbell.
    fn submit(&mut self, id: u16) -> Result<()> {
        let mut entry = [0u8; 64];
        entry[0] = IDENTIFY;
        entry[2..4].copy_from_slice(&id.to_le_bytes());
        entry[8..16].copy_from_slice(&(IOVA + BUFFER as u64).to_le_bytes());
        entry[16..20].copy_from_slice(&256u32.to_le_bytes());
        self.memory.write(SQ + 64 * self.tail as usize, &entry);
        self.tail = (self.tail + 1) % ENTRIES;
        fence(Ordering::SeqCst);
        self.ring_admin()
    }

    /// Three rounds of the ring: doorbell, command, completion, interrupt.
    fn admin(&mut self) -> Result<()> {
        self.client.region_write(BAR0, ASQ_BASE_LO, &(IOVA + SQ as u64).to_le_bytes())?;
        self.client.region_write(BAR0, ACQ_BASE_LO, &(IOVA + CQ as u64).to_le_bytes())?;
        self.write32(AQ_SIZE, ENTRIES | ENTRIES << 16)?;
        self.write32(AQ_CONTROL, 1)?;
        let mut phase = 1;
        for id in 0x100..0x100 + 3 * ENTRIES as u16 {
            self.memory.write(BUFFER, &[0xa5; 256]);
            self.submit(id)?;
            self.interrupt(IRQ_ADMIN)?;
            fence(Ordering::SeqCst);
            let cqe = self.memory.read(CQ + 32 * self.head as usize, 32);
            check!(u16_at(&cqe, 0x1e) == phase, "status {:#x} of command {id:#x}, want phase {phase} and success", u16_at(&cqe, 0x1e));
            check!(u16_at(&cqe, 0x1c) == id && u16_at(&cqe, 0x1a) == 0, "completion {cqe:02x?} of command {id:#x}");
            check!(u32::from(u16_at(&cqe, 0x18)) == self.tail, "sq_head {} with tail {}", u16_at(&cqe, 0x18), self.tail);
            self.head += 1;
            if self.head == ENTRIES {
                (self.head, phase) = (0, phase ^ 1);
            }
            let base: u64 = self.read32(DOORBELL_OFFSET)?.into();
            self.write32(base + 4, self.head)?;

            let identity = self.memory.read(BUFFER, 256);
            let want = [256, self.read32(FW_VERSION)?, self.read32(FW_BUILD)?, self.read32(ARCH_VERSION)?];
            let got: Vec<u32> = (0..4).map(|i| u32_at(&identity, 4 * i)).collect();
            check!(got == want, "IDENTIFY tells {got:x?}, registers {want:x?}");
            check!(identity[0x40..].iter().all(|&b| b == 0), "reserved bytes of IDENTIFY are not 0");
        }
        Ok(())
    }

    /// The client does not see error replies; what counts is that both stay in step.
    fn refusals(&mut self) -> Result<()> {
        self.client.dma_map(FILE_OFFSET, IOVA + 0x1000, 0x1000, self.memory_file.as_raw_fd())?; // overlaps: EEXIST
        check!(self.read32(ID)? == MAGIC, "out of step after a DMA_MAP that was refused");
        self.client.set_irqs(MSIX, DATA_NONE_TRIGGER, 0, 4096, &[])?; // no such vectors: EINVAL
        check!(self.read32(ID)? == MAGIC, "out of step after SET_IRQS that was refused");
        Ok(())
    }

    /// After the unmap the device reaches nothing: the next doorbell is a fault, and guest memory is as it was.
    fn unmap(&mut self) -> Result<()> {
        self.client.dma_unmap(IOVA, MEMORY as u64)?;
        self.memory.write(BUFFER, &[0x5a; 256]);
        let before = self.memory.read(CQ, 0x1000);
        self.submit(0x200)?;
        self.interrupt(IRQ_FAULT)?;
        let status = self.read32(FAULT_STATUS)?;
        check!(status & 1 != 0, "FAULT_STATUS is {status:#x} after a fetch from memory that is gone");
        let at = u64::from(self.read32(FAULT_ADDR_LO)?);
        check!((IOVA..IOVA + 0x1000).contains(&at), "FAULT_ADDR is {at:#x}, not in the ring");
        check!(self.memory.read(BUFFER, 256) == [0x5a; 256] && self.memory.read(CQ, 0x1000) == before, "memory written after the unmap");
        // A range that is not mapped: the reply has all 24 bytes that the client waits for.
        self.client.dma_unmap(0x7000_0000, 0x1000)?;
        check!(self.read32(ID)? == MAGIC, "out of step after an unmap of nothing");
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        self.client.reset()?;
        // A function reset closes the BARs (command register 0).
        self.client.region_write(CONFIG, 4, &0x0006u16.to_le_bytes())?;
        self.await32(DEVICE_STATUS, RESETTING, 0)?;
        self.await32(BOOT_STATUS, 0xff, WAITING)?;
        let (aq, irq, image) = (self.read32(AQ_CONTROL)?, self.read32(IRQ_ENABLE)?, self.read32(IMAGE_SIZE)?);
        check!(aq == 0 && irq == 0 && image == 0, "after reset AQ_CONTROL {aq:#x}, IRQ_ENABLE {irq:#x}, IMAGE_SIZE {image:#x}");
        (self.tail, self.head) = (0, 0);
        self.memory.write(0, &[0; 0x2000]);
        Ok(())
    }

    /// A reset leaves mappings and eventfds: the same machine boots again.
    fn again(&mut self, firmware: &[u8]) -> Result<()> {
        let cap = self.capability(0x11)?;
        let control = self.config16(cap + 2)?;
        self.client.region_write(CONFIG, cap + 2, &(control | 1 << 15).to_le_bytes())?;
        self.boot(firmware)?;
        self.admin()
    }

    fn detach(&mut self) -> Result<()> {
        self.client.set_irqs(MSIX, DATA_NONE_TRIGGER, 0, 0, &[])?;
        let vectors = self.vectors.len() as u32;
        self.client.set_irqs(MSIX, DATA_NONE_TRIGGER, 0, vectors, &[])?;
        for (i, v) in self.vectors.iter().enumerate() {
            check!(signalled(v, Duration::ZERO)? == 0, "vector {i} comes after it was detached");
        }
        Ok(())
    }
}

/// Runs a step and prints its name.
fn step(name: &str, result: Result<()>) -> Result<()> {
    result.map_err(|e| format!("{name}: {e}"))?;
    println!("ok {name}");
    Ok(())
}

fn run(socket: &Path, firmware: &[u8]) -> Result<()> {
    let mut m = Machine::connect(socket)?;
    step("negotiate", Ok(()))?;
    step("regions", m.regions())?;
    step("config", m.config())?;
    step("registers", m.registers())?;
    step("window", m.window())?;
    step("map", m.map())?;
    step("interrupts", m.interrupts())?;
    step("boot", m.boot(firmware))?;
    step("admin", m.admin())?;
    step("refusals", m.refusals())?;
    step("reset", m.reset())?;
    step("again", m.again(firmware))?;
    step("unmap", m.unmap())?;
    step("detach", m.detach())?;
    m.client.shutdown()?;
    drop(m);

    let mut m = Machine::connect(socket)?;
    m.registers()?;
    m.map()?;
    m.interrupts()?;
    m.boot(firmware)?;
    step("reconnect", m.admin())
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.len() != 3 {
        eprintln!("usage: npu-peer SOCKET FIRMWARE");
        std::process::exit(2);
    }
    let result = std::fs::read(&args[2]).map_err(Into::into).and_then(|firmware| run(Path::new(&args[1]), &firmware));
    if let Err(e) = result {
        eprintln!("npu-peer: {e}");
        std::process::exit(1);
    }
}
