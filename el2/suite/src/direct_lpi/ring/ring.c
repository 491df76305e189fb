// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Uses the PCI MSI of two functions without MSI-X. QEMU's edu sends its one message itself; this
 * module makes the four vectors of an xHCI controller pending.
 */
#include <linux/delay.h>
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/pci.h>

#define MOST 4
/* Registers of edu: QEMU's docs/specs/edu.rst. */
#define STATUS 0x24
#define RAISE 0x60
#define ACKNOWLEDGE 0x64

static struct function {
	int first;
	int vectors;
	/* Registers, if the device sends its message by itself. */
	void __iomem *base;
	atomic_t taken[MOST];
} functions[2];

static irqreturn_t handle(int irq, void *data)
{
	struct function *function = data;

	if (function->base)
		writel(readl(function->base + STATUS), function->base + ACKNOWLEDGE);
	atomic_inc(&function->taken[irq - function->first]);
	return IRQ_HANDLED;
}

/* Sends a message of one vector, and waits until it has been taken. */
static int ring(struct function *function, int vector)
{
	int before = atomic_read(&function->taken[vector]), irq = function->first + vector;
	int error = 0, wait;

	if (function->base)
		writel(1, function->base + RAISE);
	else
		error = irq_set_irqchip_state(irq, IRQCHIP_STATE_PENDING, true);
	for (wait = 0; !error && wait < 10000; wait++) {
		if (atomic_read(&function->taken[vector]) == before + 1)
			return 0;
		usleep_range(100, 200);
	}
	return error ?: -ETIMEDOUT;
}

/* Sends this number of messages of each vector. */
static int set_times(const char *text, const struct kernel_param *p)
{
	unsigned int times, at, vector;
	int error = kstrtouint(text, 0, &times);

	while (!error && times--)
		for (at = 0; at < ARRAY_SIZE(functions); at++)
			for (vector = 0; !error && vector < functions[at].vectors; vector++)
				error = ring(&functions[at], vector);
	return error;
}

static int get_first(char *buffer, const struct kernel_param *p)
{
	return sysfs_emit(buffer, "%d %d\n", functions[0].first, functions[1].first);
}

static const struct kernel_param_ops times_ops = { .set = set_times };
static const struct kernel_param_ops first_ops = { .get = get_first };
module_param_cb(times, &times_ops, NULL, 0200);
module_param_cb(first, &first_ops, NULL, 0444);

static int probe(struct pci_dev *dev, const struct pci_device_id *id)
{
	struct function *function = &functions[id->driver_data];
	int error = pcim_enable_device(dev), vector;

	if (error)
		return error;
	pci_set_master(dev);
	if (!id->driver_data)
		function->base = pcim_iomap(dev, 0, 0);
	function->vectors = pci_alloc_irq_vectors(dev, 1, MOST, PCI_IRQ_MSI);
	if (function->vectors < 0)
		return function->vectors;
	function->first = pci_irq_vector(dev, 0);
	for (vector = 0; !error && vector < function->vectors; vector++)
		error = request_irq(function->first + vector, handle, 0, "ring", function);
	return error;
}

static const struct pci_device_id ids[] = {
	{ PCI_DEVICE(0x1234, 0x11e8), .driver_data = 0 },
	{ PCI_DEVICE(0x1033, 0x0194), .driver_data = 1 },
	{}
};

static struct pci_driver driver = { .name = "ring", .id_table = ids, .probe = probe };

static int __init start(void)
{
	return pci_register_driver(&driver);
}
module_init(start);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Sends PCI MSIs");
