// SPDX-License-Identifier: MIT OR Apache-2.0
/* Makes the interrupt pending whose number user space writes to the parameter `interrupt`. */
#include <linux/interrupt.h>
#include <linux/module.h>

static int set(const char *text, const struct kernel_param *p)
{
	unsigned int interrupt;
	int error = kstrtouint(text, 0, &interrupt);

	return error ?: irq_set_irqchip_state(interrupt, IRQCHIP_STATE_PENDING, true);
}

static const struct kernel_param_ops ops = { .set = set };
module_param_cb(interrupt, &ops, NULL, 0200);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Makes interrupts pending");
