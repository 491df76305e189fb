// SPDX-License-Identifier: GPL-2.0-only
/*
 * LPIs as a domain below the GIC's. The INTID is the only name of an LPI: there are no events,
 * collections or DeviceIDs.
 */
#include "direct-lpi.h"

#include <linux/bitmap.h>
#include <linux/cpumask.h>
#include <linux/io.h>
#include <linux/irq.h>
#include <linux/irqchip/arm-gic-v3.h>
#ifdef HAS_MSI_LIB
#include <linux/irqchip/irq-msi-lib.h>
#endif
#include <linux/module.h>
#include <linux/msi.h>
#include <linux/mutex.h>
#include <linux/of_address.h>
#include <linux/of_irq.h>
#include <linux/pci.h>
#include <linux/slab.h>

/* The data of a PCI MSI has 16 bits, and is the INTID. */
#define MAX_ID_BITS 16U
#define MIN_ID_BITS 14U

static unsigned int id_bits = MAX_ID_BITS;
module_param(id_bits, uint, 0444);
MODULE_PARM_DESC(id_bits, "Number of INTID bits, from 14 to 16. Fewer bits need smaller tables");

static struct irq_domain *domain;
static unsigned int intids;
/* The INTIDs in use, and their blocks. Both have one entry for each INTID, LPI or not. */
static unsigned long *used;
static struct dlpi_block **blocks;
static DEFINE_MUTEX(allocation_lock);

/* Returns the CPU that an LPI's messages target, or nr_cpu_ids if the LPI is not in use. */
unsigned int dlpi_target(u32 intid)
{
	lockdep_assert_held(&dlpi_lock);
	return blocks[intid] ? blocks[intid]->cpu : nr_cpu_ids;
}

/* Returns the number of the interrupt that an LPI signals. */
unsigned int dlpi_interrupt(u32 intid)
{
	return irq_find_mapping(domain, intid);
}

static void update(struct irq_data *d, bool enabled)
{
	struct dlpi_block *block = irq_data_get_irq_chip_data(d);
	unsigned long flags;
	unsigned int cpu;

	raw_spin_lock_irqsave(&dlpi_lock, flags);
	dlpi_configure(d->hwirq, enabled);
	for_each_cpu_and(cpu, &block->visited, cpu_online_mask)
		dlpi_invalidate(cpu, d->hwirq);
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
}

static void mask(struct irq_data *d)
{
	update(d, false);
}

static void unmask(struct irq_data *d)
{
	update(d, true);
}

/* A device's write needs the physical address. Its data is the INTID. */
static void compose(struct irq_data *d, struct msi_msg *msg)
{
	struct dlpi_block *block = irq_data_get_irq_chip_data(d);
	u64 doorbell = dlpi_doorbell(block->cpu);

	msg->address_lo = lower_32_bits(doorbell);
	msg->address_hi = upper_32_bits(doorbell);
	msg->data = d->hwirq;
}

static bool has_online_target(const struct dlpi_block *block)
{
	return block->cpu < nr_cpu_ids && cpu_online(block->cpu);
}

/*
 * The core writes a block's message when it activates or moves the first vector, and only then. The
 * write takes no other lock than pci_lock, which is raw: only a PCI MSI has several vectors.
 */
static void write_message(struct irq_domain *lpis, unsigned int first)
{
	struct msi_msg message;

	compose(irq_domain_get_irq_data(lpis, first), &message);
	pci_write_msi_msg(first, &message);
}

/*
 * The first half of a move: the new redistributor reads the configuration of each LPI of the block,
 * of which it may have an old copy. The second half is the message. A message that is already
 * pending at the old redistributor is taken there.
 *
 * The vectors of a PCI MSI have one message. A vector other than the first moves it only if its CPU
 * went offline while no driver had requested the first one.
 */
static void move(struct irq_data *d, unsigned int cpu)
{
	struct dlpi_block *block = irq_data_get_irq_chip_data(d);
	unsigned int first = d->irq - (d->hwirq - block->base);
	bool is_first = d->irq == first;
	unsigned long flags;
	struct irq_data *at;
	u32 nr;

	raw_spin_lock_irqsave(&dlpi_lock, flags);
	/* Another vector may have moved the block meanwhile. */
	if (!is_first && has_online_target(block))
		goto unlock;
	for (nr = 0; nr < block->count; nr++) {
		at = irq_domain_get_irq_data(d->domain, first + nr);
		dlpi_invalidate(cpu, block->base + nr);
		if (irqd_is_started(at) && !has_online_target(block))
			dlpi_leave(block->base + nr);
		irq_data_update_effective_affinity(at, cpumask_of(cpu));
	}
	block->cpu = cpu;
	cpumask_set_cpu(cpu, &block->visited);
	if (!is_first)
		write_message(d->domain, first);
unlock:
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
}

static int set_affinity(struct irq_data *d, const struct cpumask *mask, bool force)
{
	struct dlpi_block *block = irq_data_get_irq_chip_data(d);
	unsigned int cpu = block->cpu;

	if (!has_online_target(block) || !cpumask_test_cpu(cpu, mask))
		cpu = force ? cpumask_first(mask) :
			      cpumask_any_and_distribute(mask, cpu_online_mask);
	if (cpu >= nr_cpu_ids)
		return -EINVAL;
	if (cpu == block->cpu)
		return IRQ_SET_MASK_OK_DONE;
	/* Only the first vector may move a block whose CPU is online. */
	if (block->cpu >= nr_cpu_ids || (d->hwirq != block->base && has_online_target(block)))
		return -EINVAL;
	move(d, cpu);
	return IRQ_SET_MASK_OK;
}

/* Only the pending state can be set. It cannot be read: redistributors do not show it. */
static int set_state(struct irq_data *d, enum irqchip_irq_state which, bool state)
{
	struct dlpi_block *block = irq_data_get_irq_chip_data(d);

	if (which != IRQCHIP_STATE_PENDING || block->cpu >= nr_cpu_ids)
		return -EINVAL;
	return dlpi_set_pending(block->cpu, d->hwirq, state);
}

/* Returns 1 if the interrupt was made pending in hardware, as the core expects. */
static int retrigger(struct irq_data *d)
{
	return !set_state(d, IRQCHIP_STATE_PENDING, true);
}

static struct irq_chip chip = {
	.name = "DLPI",
	.irq_mask = mask,
	.irq_unmask = unmask,
	.irq_eoi = irq_chip_eoi_parent,
	.irq_set_affinity = set_affinity,
	.irq_compose_msi_msg = compose,
	.irq_set_irqchip_state = set_state,
	.irq_retrigger = retrigger,
};

/* Reserves consecutive INTIDs. A PCI MSI replaces the low bits of its data, so they are aligned. */
static struct dlpi_block *allocate(u32 count)
{
	struct dlpi_block *block = kzalloc(sizeof(*block), GFP_KERNEL);
	unsigned long base, flags;
	u32 at;

	if (!block)
		return NULL;
	mutex_lock(&allocation_lock);
	base = bitmap_find_next_zero_area(used, intids, DLPI_FIRST, count,
					  roundup_pow_of_two(count) - 1);
	if (base < intids)
		bitmap_set(used, base, count);
	mutex_unlock(&allocation_lock);
	if (base >= intids) {
		kfree(block);
		return NULL;
	}
	block->base = base;
	block->count = count;
	block->cpu = nr_cpu_ids;
	raw_spin_lock_irqsave(&dlpi_lock, flags);
	for (at = 0; at < count; at++)
		blocks[base + at] = block;
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
	/* An earlier kernel may have left it pending, where its LPIs stayed enabled. */
	for (at = 0; at < count; at++)
		dlpi_forget(base + at);
	return block;
}

static void release(struct dlpi_block *block)
{
	unsigned long flags;
	u32 at;

	for (at = 0; at < block->count; at++)
		dlpi_forget(block->base + at);
	raw_spin_lock_irqsave(&dlpi_lock, flags);
	for (at = 0; at < block->count; at++)
		blocks[block->base + at] = NULL;
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
	mutex_lock(&allocation_lock);
	bitmap_clear(used, block->base, block->count);
	mutex_unlock(&allocation_lock);
	kfree(block);
}

static int alloc_in_gic(struct irq_domain *d, unsigned int virq, u32 intid)
{
	struct irq_fwspec spec = {
		.fwnode = d->parent->fwnode,
		.param_count = 3,
		.param = { GIC_IRQ_TYPE_LPI, intid, IRQ_TYPE_EDGE_RISING },
	};

	return irq_domain_alloc_irqs_parent(d, virq, 1, &spec);
}

/*
 * After a move, a message can arrive at the new CPU while the handler still runs on the old one,
 * because LPIs have no active state. Kernels from 6.5 on can send it again afterwards.
 */
static void resend_when_in_progress(unsigned int virq)
{
#ifdef HAS_RESEND_WHEN_IN_PROGRESS
	irqd_set_resend_when_in_progress(irq_get_irq_data(virq));
#endif
}

static int domain_alloc(struct irq_domain *d, unsigned int virq, unsigned int count, void *info)
{
	struct dlpi_block *block = allocate(count);
	unsigned int at;
	int error;

	if (!block) {
		pr_warn("no %u consecutive LPIs are left\n", count);
		return -ENOSPC;
	}
	for (at = 0; at < count; at++) {
		error = alloc_in_gic(d, virq + at, block->base + at);
		if (error) {
			irq_domain_free_irqs_parent(d, virq, at);
			release(block);
			return error;
		}
		irq_domain_set_hwirq_and_chip(d, virq + at, block->base + at, &chip, block);
		irqd_set_single_target(irq_get_irq_data(virq + at));
		irqd_set_affinity_on_activate(irq_get_irq_data(virq + at));
		resend_when_in_progress(virq + at);
	}
	return 0;
}

static void domain_free(struct irq_domain *d, unsigned int virq, unsigned int count)
{
	struct dlpi_block *block = irq_data_get_irq_chip_data(irq_domain_get_irq_data(d, virq));
	unsigned int at;

	for (at = 0; at < count; at++)
		irq_domain_reset_irq_data(irq_domain_get_irq_data(d, virq + at));
	irq_domain_free_irqs_parent(d, virq, count);
	release(block);
}

/* Chooses a target before the core composes the message. */
static int domain_activate(struct irq_domain *d, struct irq_data *data, bool reserve)
{
	struct dlpi_block *block = irq_data_get_irq_chip_data(data);
	unsigned int cpu;

	if (has_online_target(block)) {
		irq_data_update_effective_affinity(data, cpumask_of(block->cpu));
		return 0;
	}
	cpu = cpumask_any_and_distribute(irq_data_get_affinity_mask(data), cpu_online_mask);
	if (cpu >= nr_cpu_ids)
		cpu = cpumask_first(cpu_online_mask);
	move(data, cpu);
	return 0;
}

/* The core clears the message together with the first vector, but other vectors may be in use. */
static void domain_deactivate(struct irq_domain *d, struct irq_data *data)
{
	struct dlpi_block *block = irq_data_get_irq_chip_data(data);
	unsigned long flags;

	if (block->count > 1 && data->hwirq == block->base) {
		raw_spin_lock_irqsave(&dlpi_lock, flags);
		write_message(d, data->irq);
		raw_spin_unlock_irqrestore(&dlpi_lock, flags);
	}
	dlpi_forget(data->hwirq);
}

static const struct irq_domain_ops ops = {
	.alloc = domain_alloc,
	.free = domain_free,
	.activate = domain_activate,
	.deactivate = domain_deactivate,
#ifdef HAS_MSI_LIB
	.select = msi_lib_irq_domain_select,
#endif
};

static void free_blocks(void)
{
	kvfree(blocks);
	bitmap_free(used);
}

static int allocate_blocks(unsigned int bits)
{
	intids = BIT(bits);
	used = bitmap_zalloc(intids, GFP_KERNEL);
	blocks = kvcalloc(intids, sizeof(*blocks), GFP_KERNEL);
	if (used && blocks)
		return 0;
	free_blocks();
	return -ENOMEM;
}

/* Creates the domains. Devices may use them at once, so this is the last step that can fail. */
static struct irq_domain *create_domains(struct irq_domain *gic)
{
	struct fwnode_handle *name;
	struct irq_domain *functions;

	domain = dlpi_create_parent(gic, intids, &ops);
	functions = domain ? dlpi_create_pci_domain(domain) : NULL;
	if (domain && !functions) {
		name = domain->fwnode;
		irq_domain_remove(domain);
		if (is_fwnode_irqchip(name))
			irq_domain_free_fwnode(name);
	}
	return functions;
}

/* Returns the number of INTID bits, or an error if the GIC or its node forbids Direct LPIs. */
static int id_bits_of(struct device_node *gic)
{
	struct device_node *its = of_get_compatible_child(gic, "arm,gic-v3-its");
	void __iomem *distributor;
	unsigned int bits, lpis;
	u32 typer;

	of_node_put(its);
	if (!of_property_read_bool(gic, "msi-controller") ||
	    !of_property_read_bool(gic, "arm,direct-lpi")) {
		pr_err("%pOF: msi-controller and arm,direct-lpi must announce Direct LPIs\n", gic);
		return -ENODEV;
	}
	if (of_property_present(gic, "mbi-ranges")) {
		pr_err("%pOF: a device cannot choose between mbi-ranges and arm,direct-lpi\n", gic);
		return -EINVAL;
	}
	if (its) {
		pr_err("%pOF: the ITS owns the LPIs\n", gic);
		return -EBUSY;
	}
	distributor = of_iomap(gic, 0);
	if (!distributor)
		return -ENOMEM;
	typer = readl_relaxed(distributor + GICD_TYPER);
	dlpi_copy_priority(distributor);
	iounmap(distributor);
	bits = min(GICD_TYPER_ID_BITS(typer), clamp(id_bits, MIN_ID_BITS, MAX_ID_BITS));
	/*
	 * Zero means that each INTID above 8191 is an LPI. Otherwise, 2^lpis LPIs exist, and tables
	 * for 2^bits INTIDs must not have entries for more.
	 */
	lpis = GICD_TYPER_NUM_LPIS(typer);
	if (lpis > 1)
		bits = min(bits, lpis == ilog2(DLPI_FIRST) ? lpis + 1 : lpis);
	if (!(typer & GICD_TYPER_LPIS) || bits < MIN_ID_BITS) {
		pr_err("%pOF: the distributor has no LPIs (GICD_TYPER is %#x)\n", gic, typer);
		return -ENODEV;
	}
	return bits;
}

/* Starts the redistributors, and then lets devices use them. */
static int __init start(struct irq_domain *gic, struct device_node *node, unsigned int bits)
{
	struct irq_domain *functions;
	int error = dlpi_start_redistributors(bits) ?: dlpi_register_shutdown();

	if (error)
		goto stop;
	functions = create_domains(gic);
	if (!functions) {
		error = -ENOMEM;
		goto unregister;
	}
	dlpi_serve_pci(functions, node);
	pr_info("LPIs %u to %lu, the doorbell of CPU 0 is %#llx\n", DLPI_FIRST, BIT(bits) - 1,
		dlpi_doorbell(0));
	return 0;

unregister:
	dlpi_unregister_shutdown();
stop:
	dlpi_stop_redistributors();
	return error;
}

static int __init direct_lpi_init(void)
{
	struct device_node *node = of_find_compatible_node(NULL, NULL, "arm,gic-v3");
	struct irq_domain *gic = node ? irq_find_host(node) : NULL;
	int bits, error;

	if (!gic) {
		pr_err("no GICv3 in the devicetree; ACPI is not supported\n");
		return -ENODEV;
	}
	bits = id_bits_of(node);
	error = bits < 0 ? bits : allocate_blocks(bits);
	if (error)
		return error;
	error = dlpi_find_redistributors(node) ?: start(gic, node, bits);
	if (error)
		free_blocks();
	return error;
}

/*
 * Built in, the driver starts before the kernel creates the devices of the devicetree, which look
 * for their controller only then. There is no exit: an interrupt controller must not go away while
 * devices may send messages.
 */
arch_initcall(direct_lpi_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Direct LPIs of a GICv3 without an ITS");
