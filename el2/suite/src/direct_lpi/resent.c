// SPDX-License-Identifier: GPL-2.0-only
/*
 * Added to the driver by the suite: lists interrupts that the driver sent again without knowing
 * whether they were pending. The suite subtracts them from what a guest counts.
 */
#include "direct-lpi.h"

#include <linux/irq.h>
#include <linux/moduleparam.h>

#define MOST 256

void dlpi_note(const struct dlpi *lpi);

static const struct dlpi *resent[MOST];
static unsigned int count;

void dlpi_note(const struct dlpi *lpi)
{
	if (count < MOST)
		resent[count++] = lpi;
}

static bool is_of(unsigned int irq, const struct dlpi *lpi)
{
	struct irq_data *d;

	for (d = irq_get_irq_data(irq); d; d = d->parent_data)
		if (irq_data_get_irq_chip_data(d) == lpi)
			return true;
	return false;
}

static int resent_get(char *buffer, const struct kernel_param *p)
{
	unsigned int at, irq;
	int length = 0;

	for (at = 0; at < count; at++)
		for (irq = 0; irq < 1024; irq++)
			if (is_of(irq, resent[at]))
				length += sysfs_emit_at(buffer, length, "%u\n", irq);
	return length;
}

static const struct kernel_param_ops resent_ops = { .get = resent_get };
module_param_cb(resent, &resent_ops, NULL, 0444);
