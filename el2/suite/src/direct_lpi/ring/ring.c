// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Uses the PCI MSIs of two functions without MSI-X, and, where the core offers platform MSIs to the
 * children of an MSI parent, those of a platform device. QEMU's edu sends its one message itself.
 * The CPU writes the messages of the platform device, which has no hardware, and that of an xHCI
 * controller, as it stands in its registers. Behind an SMMU, where a CPU cannot write to the
 * controller's addresses, this module makes its interrupt pending. The xHCI controller has up to 16
 * vectors, of which it must get one: with a single message, they could not move apart.
 *
 * After the driver of Direct LPIs has been shut down, the module makes interrupts pending that the
 * next kernel must not take.
 */
#include <linux/delay.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/msi.h>
#include <linux/of.h>
#include <linux/of_irq.h>
#include <linux/pci.h>
#include <linux/platform_device.h>

#define MOST 4
/* Registers of edu: QEMU's docs/specs/edu.rst. */
#define STATUS 0x24
#define RAISE 0x60
#define ACKNOWLEDGE 0x64

static struct vector {
	int irq;
	/* Registers of edu, which sends its message by itself. */
	void __iomem *base;
	/* The function that has this message in its registers, and the vector's number there. */
	struct pci_dev *function;
	u32 number;
	/* The message of a platform device. */
	struct msi_msg message;
	atomic_t taken;
} vectors[3 * MOST];
/* The numbers of the interrupts. */
static int movable[2 + MOST];

/* A fact for the judge, like those of the guest's program. */
#define COMPLAIN(line) pr_emerg("{\"linux\":{\"complaint\":{\"line\":\"" line "\"}}}\n")

static irqreturn_t handle(int irq, void *data)
{
	struct vector *vector = data;

	if (vector->base)
		writel(readl(vector->base + STATUS), vector->base + ACKNOWLEDGE);
	atomic_inc(&vector->taken);
	return IRQ_HANDLED;
}

/* Reads a vector's message from the registers of its function. */
static void read_message(struct vector *vector)
{
	struct pci_dev *dev = vector->function;
	struct msi_msg *message = &vector->message;
	u16 control, data;

	pci_read_config_word(dev, dev->msi_cap + PCI_MSI_FLAGS, &control);
	pci_read_config_dword(dev, dev->msi_cap + PCI_MSI_ADDRESS_LO, &message->address_lo);
	if (control & PCI_MSI_FLAGS_64BIT) {
		pci_read_config_dword(dev, dev->msi_cap + PCI_MSI_ADDRESS_HI, &message->address_hi);
		pci_read_config_word(dev, dev->msi_cap + PCI_MSI_DATA_64, &data);
	} else {
		pci_read_config_word(dev, dev->msi_cap + PCI_MSI_DATA_32, &data);
	}
	message->data = data | vector->number;
}

static int send(struct vector *vector)
{
	struct msi_msg *message = &vector->message;
	void __iomem *doorbell;

	if (vector->base) {
		writel(1, vector->base + RAISE);
		return 0;
	}
	if (vector->function)
		read_message(vector);
	else if (!message->address_lo)
		return irq_set_irqchip_state(vector->irq, IRQCHIP_STATE_PENDING, true);
	if (!message->address_lo)
		return -ENXIO;
	doorbell = ioremap((u64)message->address_hi << 32 | message->address_lo, sizeof(u32));
	if (!doorbell)
		return -ENOMEM;
	writel(message->data, doorbell);
	iounmap(doorbell);
	return 0;
}

/* Sends a message of one vector, and waits until it has been taken. */
static int ring(struct vector *vector)
{
	int before = atomic_read(&vector->taken), error = send(vector), wait;

	for (wait = 0; !error && wait < 10000; wait++) {
		if (atomic_read(&vector->taken) == before + 1)
			return 0;
		usleep_range(100, 200);
	}
	return error ?: -ETIMEDOUT;
}

/* Sends this number of messages of each vector. */
static int set_times(const char *text, const struct kernel_param *p)
{
	unsigned int times, at;
	int error = kstrtouint(text, 0, &times);

	while (!error && times--)
		for (at = 0; !error && at < ARRAY_SIZE(vectors); at++)
			if (vectors[at].irq)
				error = ring(&vectors[at]);
	return error;
}

static int get_first(char *buffer, const struct kernel_param *p)
{
	int length = 0, at;

	for (at = 0; at < ARRAY_SIZE(movable); at++)
		if (movable[at])
			length += sysfs_emit_at(buffer, length, "%d ", movable[at]);
	return length;
}

static const struct kernel_param_ops times_ops = { .set = set_times };
static const struct kernel_param_ops first_ops = { .get = get_first };
module_param_cb(times, &times_ops, NULL, 0200);
module_param_cb(first, &first_ops, NULL, 0444);

static int request(struct vector *vector, int irq)
{
	int error = request_irq(irq, handle, 0, "ring", vector);

	vector->irq = irq;
	msleep(20);
	if (atomic_read(&vector->taken))
		COMPLAIN("an MSI was taken that nobody sent");
	return error;
}

static bool external;
module_param(external, bool, 0444);
MODULE_PARM_DESC(external, "Treat edu like a function below an external port");

static int probe(struct pci_dev *dev, const struct pci_device_id *id)
{
	struct vector *own = &vectors[id->driver_data * MOST];
	struct iommu_domain *iommu;
	int error = pcim_enable_device(dev), count, at;

	if (error)
		return error;
	pci_set_master(dev);
	if (!id->driver_data) {
		own->base = pcim_iomap(dev, 0, 0);
		dev->untrusted = external;
	}
	count = pci_alloc_irq_vectors(dev, 1, MOST, PCI_IRQ_MSI);
	if (count != 1)
		return count < 0 ? count : -EINVAL;
	movable[id->driver_data] = pci_irq_vector(dev, 0);
	iommu = iommu_get_domain_for_dev(&dev->dev);
	for (at = 0; !error && at < count; at++) {
		own[at].number = at;
		if (!own->base && (!iommu || iommu->type == IOMMU_DOMAIN_IDENTITY))
			own[at].function = dev;
		error = request(&own[at], pci_irq_vector(dev, at));
	}
	return error;
}

static const struct pci_device_id ids[] = {
	{ PCI_DEVICE(0x1234, 0x11e8), .driver_data = 0 },
	{ PCI_DEVICE(0x1033, 0x0194), .driver_data = 1 },
	{}
};

static struct pci_driver driver = { .name = "ring", .id_table = ids, .probe = probe };

#if __has_include(<linux/irqchip/irq-msi-lib.h>)
static bool platform = true;
module_param(platform, bool, 0444);
MODULE_PARM_DESC(platform, "Set if the core offers platform MSIs to modules");

static void write_message(struct msi_desc *desc, struct msi_msg *message)
{
	vectors[2 * MOST + desc->msi_index].message = *message;
}

/* Uses the platform device that the devicetree describes for this test. */
static int __init find_platform_device(void)
{
	struct device *dev = bus_find_device_by_name(&platform_bus_type, NULL, "ring");
	int error, at;

	if (!dev)
		return -ENODEV;
#ifdef MODULE
	/* The device was created before the module that drives its controller was loaded. */
	dev_set_msi_domain(dev, of_msi_get_domain(dev, dev->of_node, DOMAIN_BUS_PLATFORM_MSI));
#endif
	error = platform_device_msi_init_and_alloc_irqs(dev, MOST, write_message);
	if (error)
		COMPLAIN("the devicetree's device has no platform MSIs");
	for (at = 0; !error && at < MOST; at++) {
		movable[2 + at] = msi_get_virq(dev, at);
		error = request(&vectors[2 * MOST + at], movable[2 + at]);
	}
	return error;
}
#else
static int __init find_platform_device(void)
{
	return 0;
}
#endif

static int probe_late(struct platform_device *late)
{
	return 0;
}

static void shut_down_late(struct platform_device *late)
{
	int at;

	for (at = 0; at < ARRAY_SIZE(vectors); at++)
		if (vectors[at].irq)
			irq_set_irqchip_state(vectors[at].irq, IRQCHIP_STATE_PENDING, true);
}

static struct platform_driver late_driver = {
	.shutdown = shut_down_late,
	.driver = { .name = "late" },
};

/* Devices are shut down before the suppliers that they are linked to. */
static int __init add_late_device(void)
{
	struct device *lpis = bus_find_device_by_name(&platform_bus_type, NULL, "direct-lpi");
	struct platform_device *late;
	bool is_linked;

	if (!lpis)
		return 0;
	late = platform_create_bundle(&late_driver, probe_late, NULL, 0, NULL, 0);
	is_linked = !IS_ERR(late) && device_link_add(lpis, &late->dev, DL_FLAG_STATELESS);
	put_device(lpis);
	return is_linked ? 0 : -ENODEV;
}

static int __init start(void)
{
	return pci_register_driver(&driver) ?: add_late_device() ?: find_platform_device();
}
module_init(start);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Sends PCI MSIs and platform MSIs");
