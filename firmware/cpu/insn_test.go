// SPDX-License-Identifier: Apache-2.0

package cpu

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	testRAM  uint32 = 0x8000_0000
	testPC          = testRAM + 0x100
	testData        = testRAM + 0x1000
)

// instructions gives one instruction's effect per row. asm is GNU assembler
// syntax, and code what that assembler made of it, so that the encodings come
// from elsewhere.
//
// in and want are lists of key=value. Keys: xN a register; mN the word at
// testData+N; pc where the hart goes, relative to the instruction (the next one
// if not given); trap the cause and tval the value of an exception, 0 if not
// given. In values, D is testData. What in does not set is 0; what want does not
// set must be as it was.
var instructions = []struct {
	asm      string
	code     uint32
	in, want string
}{

	// RV32I
	{"lui x5, 0x80000", 0x800002b7, "", "x5=0x80000000"},
	{"lui x5, 0xfffff", 0xfffff2b7, "", "x5=0xfffff000"},
	{"lui x0, 1", 0x00001037, "", ""},
	{"auipc x5, 1", 0x00001297, "", "x5=0x80001100"},
	{"auipc x5, 0xfffff", 0xfffff297, "", "x5=0x7ffff100"},
	{"jal x5, .+2046", 0x7fe002ef, "", "x5=0x80000104 pc=2046"},
	{"jal x1, .-4", 0xffdff0ef, "", "x1=0x80000104 pc=-4"},
	{"jal x0, .+0xffffe", 0x7ffff06f, "", "pc=0xffffe"},
	{"jalr x5, 3(x6)", 0x003302e7, "x6=0x80000200", "x5=0x80000104 pc=0x102"},
	{"jalr x6, -1(x6)", 0xfff30367, "x6=0x80000200", "x6=0x80000104 pc=0xfe"},
	{"jalr x0, 0(x6)", 0x00030067, "x6=0x80000110", "pc=0x10"},
	{"beq x6, x7, .+16", 0x00730863, "x6=5 x7=5", "pc=16"},
	{"beq x6, x7, .+16", 0x00730863, "x6=5 x7=6", "pc=4"},
	{"beq x6, x7, .-4096", 0x80730063, "", "pc=-4096"},
	{"bne x6, x7, .+4094", 0x7e731fe3, "x6=5 x7=6", "pc=4094"},
	{"bne x6, x7, .+16", 0x00731863, "x6=5 x7=5", "pc=4"},
	{"blt x6, x7, .+16", 0x00734863, "x6=-1 x7=0", "pc=16"},
	{"blt x6, x7, .+16", 0x00734863, "x6=0 x7=-1", "pc=4"},
	{"blt x6, x7, .+16", 0x00734863, "x6=7 x7=7", "pc=4"},
	{"bge x6, x7, .+16", 0x00735863, "x6=7 x7=7", "pc=16"},
	{"bge x6, x7, .+16", 0x00735863, "x6=0x80000000 x7=0x7fffffff", "pc=4"},
	{"bge x6, x7, .+16", 0x00735863, "x6=0x7fffffff x7=0x80000000", "pc=16"},
	{"bltu x6, x7, .+16", 0x00736863, "x6=0 x7=-1", "pc=16"},
	{"bltu x6, x7, .+16", 0x00736863, "x6=-1 x7=0", "pc=4"},
	{"bgeu x6, x7, .+16", 0x00737863, "x6=-1 x7=0", "pc=16"},
	{"bgeu x6, x7, .+16", 0x00737863, "x6=0 x7=-1", "pc=4"},
	{"bgeu x6, x7, .+16", 0x00737863, "x6=3 x7=3", "pc=16"},
	{"lb x5, 3(x6)", 0x00330283, "x6=D m0=0x8182f384", "x5=0xffffff81"},
	{"lb x5, 0(x6)", 0x00030283, "x6=D m0=0x8182f374", "x5=0x74"},
	{"lbu x5, 1(x6)", 0x00134283, "x6=D m0=0x8182f384", "x5=0xf3"},
	{"lh x5, 2(x6)", 0x00231283, "x6=D m0=0x8182f384", "x5=0xffff8182"},
	{"lh x5, 0(x6)", 0x00031283, "x6=D m0=0x81827384", "x5=0x7384"},
	{"lhu x5, -2(x6)", 0xffe35283, "x6=D+4 m0=0x8182f384", "x5=0x8182"},
	{"lw x5, -4(x6)", 0xffc32283, "x6=D+8 m4=0x8182f384", "x5=0x8182f384"},
	{"lw x0, 0(x6)", 0x00032003, "x6=D m0=5", ""},
	{"lw x6, 0(x6)", 0x00032303, "x6=D m0=5", "x6=5"},
	{"lw x5, 2047(x6)", 0x7ff32283, "x6=D-2047 m0=5", "x5=5"},
	{"sb x7, 1(x6)", 0x007300a3, "x6=D x7=0x12345678 m0=0xffffffff", "m0=0xffff78ff"},
	{"sh x7, 2(x6)", 0x00731123, "x6=D x7=0x12345678 m0=0xffffffff", "m0=0x5678ffff"},
	{"sw x7, -2048(x6)", 0x80732023, "x6=D+2052 x7=0x12345678", "m4=0x12345678"},
	{"sw x0, 0(x6)", 0x00032023, "x6=D m0=5", "m0=0"},
	{"addi x5, x6, -2048", 0x80030293, "x6=1", "x5=0xfffff801"},
	{"addi x5, x6, 2047", 0x7ff30293, "x6=0x7fffffff", "x5=0x800007fe"},
	{"addi x0, x6, 1", 0x00130013, "x6=1", ""},
	{"slti x5, x6, -1", 0xfff32293, "x6=-2", "x5=1"},
	{"slti x5, x6, -1", 0xfff32293, "x6=-1 x5=9", "x5=0"},
	{"slti x5, x6, 1", 0x00132293, "x6=0x80000000", "x5=1"},
	{"sltiu x5, x6, -1", 0xfff33293, "x6=-2", "x5=1"},
	{"sltiu x5, x6, 1", 0x00133293, "x6=0", "x5=1"},
	{"sltiu x5, x6, 1", 0x00133293, "x6=0x80000000 x5=9", "x5=0"},
	{"xori x5, x6, -1", 0xfff34293, "x6=0x0f0f0f0f", "x5=0xf0f0f0f0"},
	{"ori x5, x6, -256", 0xf0036293, "x6=0x12", "x5=0xffffff12"},
	{"andi x5, x6, -256", 0xf0037293, "x6=0x12345678", "x5=0x12345600"},
	{"slli x5, x6, 31", 0x01f31293, "x6=3", "x5=0x80000000"},
	{"slli x5, x6, 0", 0x00031293, "x6=3", "x5=3"},
	{"srli x5, x6, 31", 0x01f35293, "x6=0x80000000", "x5=1"},
	{"srai x5, x6, 31", 0x41f35293, "x6=0x80000000", "x5=0xffffffff"},
	{"srai x5, x6, 4", 0x40435293, "x6=0x70000000", "x5=0x07000000"},
	{"add x5, x6, x7", 0x007302b3, "x6=0x7fffffff x7=1", "x5=0x80000000"},
	{"add x0, x6, x7", 0x00730033, "x6=1 x7=1", ""},
	{"sub x5, x6, x7", 0x407302b3, "x6=0x80000000 x7=1", "x5=0x7fffffff"},
	{"sll x5, x6, x7", 0x007312b3, "x6=1 x7=33", "x5=2"},
	{"sll x5, x6, x7", 0x007312b3, "x6=1 x7=-1", "x5=0x80000000"},
	{"slt x5, x6, x7", 0x007322b3, "x6=0x80000000 x7=0x7fffffff", "x5=1"},
	{"slt x5, x6, x7", 0x007322b3, "x6=1 x7=1 x5=9", "x5=0"},
	{"sltu x5, x6, x7", 0x007332b3, "x6=0x80000000 x7=0x7fffffff x5=9", "x5=0"},
	{"sltu x5, x0, x7", 0x007032b3, "x7=1", "x5=1"},
	{"xor x5, x6, x7", 0x007342b3, "x6=0xff00ff00 x7=0x0ff00ff0", "x5=0xf0f0f0f0"},
	{"srl x5, x6, x7", 0x007352b3, "x6=0x80000000 x7=0x24", "x5=0x08000000"},
	{"sra x5, x6, x7", 0x407352b3, "x6=0x80000000 x7=0x24", "x5=0xf8000000"},
	{"or x5, x6, x7", 0x007362b3, "x6=0xff00ff00 x7=0x0ff00ff0", "x5=0xfff0fff0"},
	{"and x5, x6, x7", 0x007372b3, "x6=0xff00ff00 x7=0x0ff00ff0", "x5=0x0f000f00"},
	{"fence", 0x0ff0000f, "", ""},
	{"fence.tso", 0x8330000f, "", ""},
	{"fence.i", 0x0000100f, "", ""},
	{".word 0x0100000f", 0x0100000f, "", ""},

	// M
	{"mul x5, x6, x7", 0x027302b3, "x6=-3 x7=5", "x5=-15"},
	{"mul x5, x6, x7", 0x027302b3, "x6=0x10001 x7=0x10001", "x5=0x20001"},
	{"mulh x5, x6, x7", 0x027312b3, "x6=0x80000000 x7=0x80000000", "x5=0x40000000"},
	{"mulh x5, x6, x7", 0x027312b3, "x6=-1 x7=1", "x5=-1"},
	{"mulh x5, x6, x7", 0x027312b3, "x6=-1 x7=-1 x5=9", "x5=0"},
	{"mulhsu x5, x6, x7", 0x027322b3, "x6=-1 x7=-1", "x5=-1"},
	{"mulhsu x5, x6, x7", 0x027322b3, "x6=0x80000000 x7=0x80000000", "x5=0xc0000000"},
	{"mulhsu x5, x6, x7", 0x027322b3, "x6=0x7fffffff x7=-1", "x5=0x7ffffffe"},
	{"mulhu x5, x6, x7", 0x027332b3, "x6=-1 x7=-1", "x5=0xfffffffe"},
	{"mulhu x5, x6, x7", 0x027332b3, "x6=0x80000000 x7=2", "x5=1"},
	{"div x5, x6, x7", 0x027342b3, "x6=-7 x7=2", "x5=-3"},
	{"div x5, x6, x7", 0x027342b3, "x6=7 x7=-2", "x5=-3"},
	{"div x5, x6, x7", 0x027342b3, "x6=7 x7=0", "x5=-1"},
	{"div x5, x6, x7", 0x027342b3, "x6=0x80000000 x7=-1", "x5=0x80000000"},
	{"divu x5, x6, x7", 0x027352b3, "x6=-7 x7=2", "x5=0x7ffffffc"},
	{"divu x5, x6, x7", 0x027352b3, "x6=7 x7=0", "x5=-1"},
	{"rem x5, x6, x7", 0x027362b3, "x6=-7 x7=2", "x5=-1"},
	{"rem x5, x6, x7", 0x027362b3, "x6=7 x7=-2", "x5=1"},
	{"rem x5, x6, x7", 0x027362b3, "x6=-7 x7=0", "x5=-7"},
	{"rem x5, x6, x7", 0x027362b3, "x6=0x80000000 x7=-1 x5=9", "x5=0"},
	{"remu x5, x6, x7", 0x027372b3, "x6=-7 x7=10", "x5=9"},
	{"remu x5, x6, x7", 0x027372b3, "x6=-7 x7=0", "x5=-7"},

	// A
	{"lr.w x5, (x6)", 0x100322af, "x6=D m0=0x80000001", "x5=0x80000001"},
	{"lr.w.aqrl x5, (x6)", 0x160322af, "x6=D+4 m4=3", "x5=3"},
	{"sc.w x5, x7, (x6)", 0x187322af, "x6=D x7=9", "x5=1"},
	{"amoswap.w x5, x7, (x6)", 0x087322af, "x6=D x7=9 m0=0x80000001", "x5=0x80000001 m0=9"},
	{"amoswap.w x6, x6, (x6)", 0x0863232f, "x6=D m0=7", "x6=7 m0=D"},
	{"amoadd.w x5, x7, (x6)", 0x007322af, "x6=D x7=-1 m0=5", "x5=5 m0=4"},
	{"amoadd.w x0, x7, (x6)", 0x0073202f, "x6=D x7=1 m0=0x7fffffff", "m0=0x80000000"},
	{"amoxor.w x5, x7, (x6)", 0x207322af, "x6=D x7=0xff m0=0x0ff0", "x5=0x0ff0 m0=0x0f0f"},
	{"amoand.w x5, x7, (x6)", 0x607322af, "x6=D x7=0xff m0=0x0ff0", "x5=0x0ff0 m0=0xf0"},
	{"amoor.w x5, x7, (x6)", 0x407322af, "x6=D x7=0xff m0=0x0ff0", "x5=0x0ff0 m0=0x0fff"},
	{"amomin.w x5, x7, (x6)", 0x807322af, "x6=D x7=-1 m0=1", "x5=1 m0=-1"},
	{"amomin.w x5, x7, (x6)", 0x807322af, "x6=D x7=1 m0=0x80000000", "x5=0x80000000"},
	{"amomax.w x5, x7, (x6)", 0xa07322af, "x6=D x7=-1 m0=1", "x5=1"},
	{"amomax.w x5, x7, (x6)", 0xa07322af, "x6=D x7=0x7fffffff m0=0x80000000", "x5=0x80000000 m0=0x7fffffff"},
	{"amominu.w x5, x7, (x6)", 0xc07322af, "x6=D x7=-1 m0=1", "x5=1"},
	{"amominu.w x5, x7, (x6)", 0xc07322af, "x6=D x7=1 m0=-1", "x5=-1 m0=1"},
	{"amomaxu.w.aq x5, x7, (x6)", 0xe47322af, "x6=D x7=-1 m0=1", "x5=1 m0=-1"},
	{"amomaxu.w.rl x5, x7, (x6)", 0xe27322af, "x6=D x7=1 m0=-1", "x5=-1"},

	// C
	{"c.addi4spn x8, sp, 4", 0x0040, "x2=0x100", "x8=0x104"},
	{"c.addi4spn x15, sp, 1020", 0x1ffc, "x2=0x100", "x15=0x4fc"},
	{"c.addi4spn x9, sp, 8", 0x0024, "x2=0x100", "x9=0x108"},
	{"c.lw x9, 124(x8)", 0x5c64, "x8=D-124 m0=0x80000001", "x9=0x80000001"},
	{"c.lw x15, 64(x14)", 0x433c, "x14=D-60 m4=3", "x15=3"},
	{"c.lw x8, 4(x8)", 0x4040, "x8=D m4=3", "x8=3"},
	{"c.sw x9, 124(x8)", 0xdc64, "x8=D-120 x9=7", "m4=7"},
	{"c.sw x15, 4(x10)", 0xc15c, "x10=D x15=7", "m4=7"},
	{"c.nop", 0x0001, "", ""},
	{"c.addi x5, -32", 0x1281, "x5=1", "x5=-31"},
	{"c.addi x31, 31", 0x0ffd, "x31=0x7fffffff", "x31=0x8000001e"},
	{"c.jal .-2048", 0x3001, "", "x1=0x80000102 pc=-2048"},
	{"c.jal .+1366", 0x2b99, "", "x1=0x80000102 pc=1366"},
	{"c.jal .+680", 0x2465, "", "x1=0x80000102 pc=680"},
	{"c.li x5, -32", 0x5281, "", "x5=-32"},
	{"c.li x31, 31", 0x4ffd, "", "x31=31"},
	{"c.addi16sp sp, -512", 0x7101, "x2=0x1000", "x2=0xe00"},
	{"c.addi16sp sp, 496", 0x617d, "x2=0x1000", "x2=0x11f0"},
	{"c.addi16sp sp, 16", 0x6141, "x2=0x1000", "x2=0x1010"},
	{"c.lui x5, 31", 0x62fd, "", "x5=0x1f000"},
	{"c.lui x5, 0xfffe0", 0x7281, "", "x5=0xfffe0000"},
	{"c.srli x8, 31", 0x807d, "x8=0x80000000", "x8=1"},
	{"c.srai x15, 31", 0x87fd, "x15=0x80000000", "x15=-1"},
	{"c.andi x8, -32", 0x9801, "x8=0xff", "x8=0xe0"},
	{"c.andi x9, 31", 0x88fd, "x9=-1", "x9=31"},
	{"c.sub x8, x9", 0x8c05, "x8=1 x9=2", "x8=-1"},
	{"c.xor x8, x15", 0x8c3d, "x8=0xff x15=0x0f", "x8=0xf0"},
	{"c.or x14, x9", 0x8f45, "x14=0xf0 x9=0x0f", "x14=0xff"},
	{"c.and x8, x9", 0x8c65, "x8=0xff x9=0x3c", "x8=0x3c"},
	{"c.j .+2046", 0xaffd, "", "pc=2046"},
	{"c.j .-2048", 0xb001, "", "pc=-2048"},
	{"c.j .-1366", 0xb46d, "", "pc=-1366"},
	{"c.beqz x8, .-256", 0xd001, "", "pc=-256"},
	{"c.beqz x9, .+254", 0xccfd, "x9=1", "pc=2"},
	{"c.beqz x9, .+170", 0xc4cd, "", "pc=170"},
	{"c.bnez x15, .+254", 0xeffd, "x15=1", "pc=254"},
	{"c.bnez x8, .-86", 0xf44d, "x8=0x80000000", "pc=-86"},
	{"c.bnez x8, .-86", 0xf44d, "", "pc=2"},
	{"c.slli x5, 31", 0x02fe, "x5=3", "x5=0x80000000"},
	{"c.slli x31, 1", 0x0f86, "x31=3", "x31=6"},
	{"c.lwsp x5, 252(sp)", 0x52fe, "x2=D-252 m0=9", "x5=9"},
	{"c.lwsp x31, 4(sp)", 0x4f92, "x2=D m4=9", "x31=9"},
	{"c.lwsp x2, 64(sp)", 0x4106, "x2=D-64 m0=9", "x2=9"},
	{"c.jr x5", 0x8282, "x5=0x80000201", "pc=0x100"},
	{"c.mv x5, x31", 0x82fe, "x31=7", "x5=7"},
	{"c.jalr x5", 0x9282, "x5=0x80000200", "x1=0x80000102 pc=0x100"},
	{"c.jalr x1", 0x9082, "x1=0x80000200", "x1=0x80000102 pc=0x100"},
	{"c.add x5, x31", 0x92fe, "x5=1 x31=7", "x5=8"},
	{"c.swsp x5, 252(sp)", 0xdf96, "x2=D-252 x5=9", "m0=9"},
	{"c.swsp x31, 64(sp)", 0xc0fe, "x2=D-60 x31=9", "m4=9"},

	// HINTs do nothing
	{".half 0x0005", 0x0005, "", ""},
	{".half 0x4005", 0x4005, "", ""},
	{".half 0x6005", 0x6005, "", ""},
	{".half 0x0006", 0x0006, "", ""},
	{".half 0x8016", 0x8016, "x5=3", ""},
	{".half 0x9016", 0x9016, "x5=3", ""},

	// Zicsr (more in trap_test.go)
	{"csrrw x5, mscratch, x6", 0x340312f3, "x6=7", "x5=0"},
	{"csrrs x5, misa, x0", 0x301022f3, "", "x5=0x40001105"},
	{"csrrc x5, mstatus, x0", 0x300032f3, "", "x5=0x1800"},
	{"csrrwi x5, mscratch, 31", 0x340fd2f3, "x5=9", "x5=0"},
	{"csrrsi x5, mhartid, 0", 0xf14062f3, "", "x5=3"},
	{"csrrci x5, mvendorid, 0", 0xf11072f3, "x5=9", "x5=0"},

	// exceptions: registers and memory stay
	{"ecall", 0x00000073, "", "trap=11"},
	{"ebreak", 0x00100073, "", "trap=3 tval=0x80000100"},
	{"c.ebreak", 0x9002, "", "trap=3 tval=0x80000100"},
	{".word 0", 0x0000, "", "trap=2"},
	{".word 0xffffffff", 0xffffffff, "", "trap=2 tval=0xffffffff"},
	{".word 0x0000007f", 0x7f, "x1=1", "trap=2 tval=0x7f"},
	{"lw x5, 1(x6)", 0x00132283, "x6=D", "trap=4 tval=D+1"},
	{"lh x5, 1(x6)", 0x00131283, "x6=D", "trap=4 tval=D+1"},
	{"lhu x5, 3(x6)", 0x00335283, "x6=D", "trap=4 tval=D+3"},
	{"sw x5, 2(x6)", 0x00532123, "x6=D x5=9", "trap=6 tval=D+2"},
	{"sh x5, 3(x6)", 0x005311a3, "x6=D x5=9", "trap=6 tval=D+3"},
	{"c.lw x9, 0(x8)", 0x4004, "x8=D+2", "trap=4 tval=D+2"},
	{"lr.w x5, (x6)", 0x100322af, "x6=D+2", "trap=4 tval=D+2"},
	{"sc.w x5, x7, (x6)", 0x187322af, "x6=D+1 x5=9", "trap=6 tval=D+1"},
	{"amoadd.w x5, x7, (x6)", 0x007322af, "x6=D+2 x5=9", "trap=6 tval=D+2"},
	{"lw x5, 4(x0)", 0x00402283, "", "trap=5 tval=4"},
	{"lb x5, -1(x0)", 0xfff00283, "", "trap=5 tval=-1"},
	{"lw x6, 1(x6)", 0x00132303, "x6=0", "trap=4 tval=1"},
	{"sw x5, 4(x0)", 0x00502223, "", "trap=7 tval=4"},
	{"sb x5, -1(x0)", 0xfe500fa3, "", "trap=7 tval=-1"},
	{"lr.w x5, (x6)", 0x100322af, "x5=9", "trap=5"},
	{"amoswap.w x5, x6, (x6)", 0x086322af, "x5=9", "trap=7"},
	{"sc.w x5, x6, (x6)", 0x186322af, "x5=9", "trap=7"},
	{".word 0x4062f3b3", 0x4062f3b3, "", "trap=2 tval=0x4062f3b3"},
	{".word 0x40031293", 0x40031293, "", "trap=2 tval=0x40031293"},
	{".word 0x02031293", 0x02031293, "", "trap=2 tval=0x02031293"},
	{".word 0x60035293", 0x60035293, "", "trap=2 tval=0x60035293"},
	{".word 0x00033283", 0x00033283, "", "trap=2 tval=0x00033283"},
	{".word 0x00037283", 0x00037283, "", "trap=2 tval=0x00037283"},
	{".word 0x00533023", 0x00533023, "", "trap=2 tval=0x00533023"},
	{".word 0x00032063", 0x00032063, "", "trap=2 tval=0x00032063"},
	{".word 0x00031067", 0x00031067, "", "trap=2 tval=0x00031067"},
	{".word 0x0000200f", 0x0000200f, "", "trap=2 tval=0x0000200f"},
	{".word 0x007332af", 0x007332af, "x6=D", "trap=2 tval=0x007332af"},
	{".word 0x107322af", 0x107322af, "x6=D", "trap=2 tval=0x107322af"},
	{".word 0x287322af", 0x287322af, "x6=D", "trap=2 tval=0x287322af"},
	{".word 0x10200073", 0x10200073, "", "trap=2 tval=0x10200073"},
	{".word 0x12000073", 0x12000073, "", "trap=2 tval=0x12000073"},
	{".word 0x00200073", 0x00200073, "", "trap=2 tval=0x00200073"},
	{".word 0x00004073", 0x00004073, "", "trap=2 tval=0x00004073"},
	{".word 0x000280f3", 0x000280f3, "", "trap=2 tval=0x000280f3"},
	{"csrrs x5, cycle, x0", 0xc00022f3, "", "trap=2 tval=0xc00022f3"},
	{"csrrs x5, time, x0", 0xc01022f3, "", "trap=2 tval=0xc01022f3"},
	{"csrrs x5, sstatus, x0", 0x100022f3, "", "trap=2 tval=0x100022f3"},
	{"csrrs x5, medeleg, x0", 0x302022f3, "", "trap=2 tval=0x302022f3"},
	{"csrrs x5, mcounteren, x0", 0x306022f3, "", "trap=2 tval=0x306022f3"},
	{"csrrs x5, mcountinhibit, x0", 0x320022f3, "", "trap=2 tval=0x320022f3"},
	{"csrrs x5, pmpcfg0, x0", 0x3a0022f3, "", "trap=2 tval=0x3a0022f3"},
	{"csrrs x5, tselect, x0", 0x7a0022f3, "", "trap=2 tval=0x7a0022f3"},
	{"csrrw x5, mhartid, x0", 0xf14012f3, "", "trap=2 tval=0xf14012f3"},
	{"csrrsi x5, mimpid, 1", 0xf130e2f3, "", "trap=2 tval=0xf130e2f3"},
	{"csrrw x0, 0xf16, x0", 0xf1601073, "", "trap=2 tval=0xf1601073"},
	{"fadd.s f0, f1, f2", 0x0020f053, "", "trap=2 tval=0x0020f053"},
	{".half 0x0004", 0x0004, "", "trap=2 tval=4"},
	{".half 0x2000", 0x2000, "x8=D", "trap=2 tval=0x2000"},
	{".half 0x6000", 0x6000, "x8=D", "trap=2 tval=0x6000"},
	{".half 0x8000", 0x8000, "", "trap=2 tval=0x8000"},
	{".half 0xa000", 0xa000, "", "trap=2 tval=0xa000"},
	{".half 0xe000", 0xe000, "", "trap=2 tval=0xe000"},
	{".half 0x6281", 0x6281, "", "trap=2 tval=0x6281"},
	{".half 0x6101", 0x6101, "", "trap=2 tval=0x6101"},
	{".half 0x9005", 0x9005, "", "trap=2 tval=0x9005"},
	{".half 0x9405", 0x9405, "", "trap=2 tval=0x9405"},
	{".half 0x9c05", 0x9c05, "", "trap=2 tval=0x9c05"},
	{".half 0x9c21", 0x9c21, "", "trap=2 tval=0x9c21"},
	{".half 0x9c41", 0x9c41, "", "trap=2 tval=0x9c41"},
	{".half 0x1286", 0x1286, "", "trap=2 tval=0x1286"},
	{".half 0x4012", 0x4012, "x2=D", "trap=2 tval=0x4012"},
	{".half 0x8002", 0x8002, "", "trap=2 tval=0x8002"},
	{".half 0x2002", 0x2002, "x2=D", "trap=2 tval=0x2002"},
	{".half 0x6002", 0x6002, "x2=D", "trap=2 tval=0x6002"},
	{".half 0xa002", 0xa002, "x2=D", "trap=2 tval=0xa002"},
	{".half 0xe002", 0xe002, "x2=D", "trap=2 tval=0xe002"},
}

// value evaluates the right side of a row's key=value.
func value(t *testing.T, s string) uint32 {
	t.Helper()
	base, rest := uint32(0), s
	if r, ok := strings.CutPrefix(s, "D"); ok {
		base, rest = testData, r
	}
	if rest == "" {
		return base
	}
	n, err := strconv.ParseInt(rest, 0, 64)
	if err != nil {
		t.Fatalf("bad value %q in the row: %v", s, err)
	}
	return base + uint32(n)
}

// state renders the registers and data words that are not zero, one per line.
func state(x [32]uint32, mem map[uint32]uint32) string {
	var b strings.Builder
	for i, v := range x {
		if v != 0 {
			fmt.Fprintf(&b, "x%d=%#x\n", i, v)
		}
	}
	for off := uint32(0); off < 0x1000; off += 4 {
		if mem[off] != 0 {
			fmt.Fprintf(&b, "m%d=%#x\n", off, mem[off])
		}
	}
	return b.String()
}

func TestInstructions(t *testing.T) {
	for _, tt := range instructions {
		t.Run(tt.asm+" "+tt.in, func(t *testing.T) {
			mem := make([]byte, 0x2000)
			c, err := New(Config{Regions: []Region{{Base: testRAM, Mem: mem, Exec: true}}, HartID: 3})
			if err != nil {
				t.Fatal(err)
			}
			// Twice: the second time the instruction is decoded and loads and stores take the short way.
			for _, pass := range []string{"first", "second"} {
				if pass == "second" {
					c.loads, c.stores = window{testRAM, mem}, window{testRAM, mem}
				}
				clear(mem[0x1000:])
				binary.LittleEndian.PutUint32(mem[0x100:], tt.code)
				var x [32]uint32
				words := map[uint32]uint32{}
				pc, trap, tval := testPC+2, "", uint32(0)
				if tt.code&3 == 3 {
					pc += 2
				}
				set := func(list string) {
					for _, kv := range strings.Fields(list) {
						key, s, _ := strings.Cut(kv, "=")
						switch v := value(t, s); {
						case key == "pc":
							pc = testPC + v
						case key == "trap":
							trap, pc = fmt.Sprint(v), 0
						case key == "tval":
							tval = v
						case key[0] == 'x':
							x[value(t, key[1:])] = v
						default:
							words[value(t, key[1:])] = v
						}
					}
				}
				set(tt.in)
				for i, v := range x {
					c.SetReg(i, v)
				}
				for off, v := range words {
					binary.LittleEndian.PutUint32(mem[0x1000+off:], v)
				}
				c.SetPC(testPC)
				c.csr = csrs{}

				n, st := c.Run(1)

				set(tt.want)
				gotWords := map[uint32]uint32{}
				for off := uint32(0); off < 0x1000; off += 4 {
					gotWords[off] = binary.LittleEndian.Uint32(mem[0x1000+off:])
				}
				var got [32]uint32
				for i := range got {
					got[i] = c.Reg(i)
				}
				if diff := cmp.Diff(state(x, words), state(got, gotWords)); diff != "" {
					t.Errorf("%s pass: state (-want +got):\n%s", pass, diff)
				}
				if n != 1 || st != Running || c.PC() != pc {
					t.Errorf("%s pass: %d steps, state %d, pc %#x, want 1, 0, %#x", pass, n, st, c.PC(), pc)
				}
				gotTrap := ""
				if c.csr.mcause != 0 {
					gotTrap = fmt.Sprint(c.csr.mcause)
				}
				if gotTrap != trap || c.csr.mtval != tval {
					t.Errorf("%s pass: trap %q, mtval %#x, want %q, %#x", pass, gotTrap, c.csr.mtval, trap, tval)
				}
				if trap != "" && c.csr.mepc != testPC {
					t.Errorf("%s pass: mepc %#x, want %#x", pass, c.csr.mepc, testPC)
				}
			}
		})
	}
}
