/* SPDX-License-Identifier: Apache-2.0 */
/* Firmware: boot, main loop, watchdog, traps. */
#include "fw.h"

#define WATCHDOG_MS	2000u
#define TICK_US		500000u

void fw_main(void) __attribute__((noreturn));
void fw_trap(uint32_t cause, uint32_t pc, uint32_t value) __attribute__((noreturn));

/* uptime returns microseconds since the processor's reset. */
uint64_t uptime(void)
{
	uint32_t lo = cp_read(NPU_CP_TIME_LO);

	return (uint64_t)cp_read(NPU_CP_TIME_HI) << 32 | lo;
}

/* With the high half at its maximum meanwhile, the timer cannot fire between the two writes. */
static void timer_set(uint64_t at)
{
	cp_write(NPU_CP_TIMECMP_HI, ~0u);
	cp_write(NPU_CP_TIMECMP_LO, (uint32_t)at);
	cp_write(NPU_CP_TIMECMP_HI, (uint32_t)(at >> 32));
}

void fw_main(void)
{
	uint64_t next;

	log_init();
	resources_init();
	ras_init();
	cp_write(NPU_CP_WATCHDOG_PERIOD, WATCHDOG_MS);
	cp_write(NPU_CP_IRQ_ENABLE, NPU_CP_IRQ_PENDING_ADMIN_MASK | NPU_CP_IRQ_PENDING_QUEUE_MASK);
	__asm__ volatile("csrw mie, %0" ::"r"(MIE_MEIE | MIE_MTIE));
	next = uptime() + TICK_US;
	timer_set(next);

	cp_write(NPU_CP_FW_VERSION, FW_INTERFACE);
	cp_write(NPU_CP_FW_BUILD, FW_BUILD);
	console(FW_NAME ": ready, contexts ");
	console_hex(contexts_limit());
	console(", queues ");
	console_hex(FIELD_GET(NPU_QUEUE_PARAM_COUNT, host_read(NPU_QUEUE_PARAM)));
	console("\n");
	boot_status(NPU_BOOT_STATE_READY, NPU_BOOT_ERROR_NONE);

	for (;;) {
		bool busy;

		/* Cleared before it is looked at: an event after this line ends WFI. */
		cp_write(NPU_CP_IRQ_CLEAR, cp_read(NPU_CP_IRQ_PENDING));
		if (uptime() >= next) {
			cp_write(NPU_CP_WATCHDOG_KICK, 1);
			admin_tick();
			ras_tick();
			next = uptime() + TICK_US;
			timer_set(next);
		}
		busy = timeout_serve();
		if (!admin_serve() && !busy)
			wait_for_interrupt();
	}
}

void fw_trap(uint32_t cause, uint32_t pc, uint32_t value)
{
	console("\n"); /* ends a line that it interrupted */
	log_level(LOG_ERROR);
	console("trap: cause ");
	console_hex(cause);
	console(" at ");
	console_hex(pc);
	console(", value ");
	console_hex(value);
	console("\n");
	cp_write(NPU_CP_FW_ERROR_DETAIL, pc);
	boot_status(NPU_BOOT_STATE_FAILED, NPU_BOOT_ERROR_TRAP);
	for (;;)
		wait_for_interrupt();
}
