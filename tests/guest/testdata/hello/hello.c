// SPDX-License-Identifier: GPL-2.0-only
/*
 * A module that needs another one (crc8) and says when it comes and goes: what the tests load to see that building,
 * dependencies, loading and unloading work.
 */
#include <linux/crc8.h>
#include <linux/module.h>

static u8 table[CRC8_TABLE_SIZE];

static int __init hello_init(void)
{
	static const u8 text[] = "hello";

	crc8_populate_msb(table, 0x07);
	pr_alert("hello: crc8 %02x\n", crc8(table, text, sizeof(text) - 1, 0));
	return 0;
}

static void __exit hello_exit(void)
{
	pr_alert("hello: gone\n");
}

module_init(hello_init);
module_exit(hello_exit);
MODULE_DESCRIPTION("Self test of the guest environment");
MODULE_LICENSE("GPL");
