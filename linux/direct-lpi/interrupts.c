// SPDX-License-Identifier: GPL-2.0-only
/*
 * LPIs as a domain below the GIC's. The INTID is the only name of an LPI: there are no events,
 * collections or DeviceIDs.
 */
#include "direct-lpi.h"

#include <linux/idr.h>
#include <linux/init.h>
#include <linux/irq.h>
#ifdef HAS_MSI_LIB
#include <linux/irqchip/irq-msi-lib.h>
#endif
#include <linux/msi.h>
#include <linux/slab.h>

static struct irq_domain *functions;
static unsigned int end;
static DEFINE_IDA(used);

static void mask(struct irq_data *d)
{
	dlpi_configure(irq_data_get_irq_chip_data(d), d->hwirq, false);
}

static void unmask(struct irq_data *d)
{
	dlpi_configure(irq_data_get_irq_chip_data(d), d->hwirq, true);
}

/* A device's write needs the physical address. Its data is the INTID. */
static void compose(struct irq_data *d, struct msi_msg *msg)
{
	struct dlpi *lpi = irq_data_get_irq_chip_data(d);
	u64 doorbell = dlpi_doorbell(lpi->cpu);

	msg->address_lo = lower_32_bits(doorbell);
	msg->address_hi = upper_32_bits(doorbell);
	msg->data = d->hwirq;
}

/* Chooses a target. The core then writes the message. */
static int set_affinity(struct irq_data *d, const struct cpumask *mask, bool force)
{
	struct dlpi *lpi = irq_data_get_irq_chip_data(d);
	unsigned int cpu = lpi->cpu;
	int error;

	if (!dlpi_is_served(cpu) || !cpumask_test_cpu(cpu, mask))
		cpu = dlpi_choose(mask, force);
	if (cpu >= nr_cpu_ids)
		return -EINVAL;
	if (cpu == lpi->cpu)
		return IRQ_SET_MASK_OK_DONE;
	error = dlpi_move(lpi, d->hwirq, cpu);
	if (error)
		return error;
	irq_data_update_effective_affinity(d, cpumask_of(cpu));
	return IRQ_SET_MASK_OK;
}

/* Only the pending state can be set. It cannot be read: redistributors do not show it. */
static int set_state(struct irq_data *d, enum irqchip_irq_state which, bool state)
{
	if (which != IRQCHIP_STATE_PENDING)
		return -EINVAL;
	return dlpi_set_pending(irq_data_get_irq_chip_data(d), d->hwirq, state);
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
static void resend_when_in_progress(struct irq_data *d)
{
#ifdef HAS_RESEND_WHEN_IN_PROGRESS
	irqd_set_resend_when_in_progress(d);
#endif
}

/* There is one interrupt: the domains of devices offer no PCI MSIs with several vectors. */
static int domain_alloc(struct irq_domain *d, unsigned int virq, unsigned int count, void *info)
{
	struct dlpi *lpi = kzalloc(sizeof(*lpi), GFP_KERNEL);
	struct irq_data *data = irq_get_irq_data(virq);
	int intid, error;

	if (!lpi)
		return -ENOMEM;
	intid = ida_alloc_range(&used, DLPI_FIRST, end - 1, GFP_KERNEL);
	error = intid < 0 ? intid : alloc_in_gic(d, virq, intid);
	if (error)
		goto free;
	lpi->cpu = nr_cpu_ids;
	dlpi_add(lpi, intid);
	irq_domain_set_hwirq_and_chip(d, virq, intid, &chip, lpi);
	irqd_set_single_target(data);
	irqd_set_affinity_on_activate(data);
	resend_when_in_progress(data);
	return 0;

free:
	if (intid >= 0)
		ida_free(&used, intid);
	kfree(lpi);
	return error;
}

static void domain_free(struct irq_domain *d, unsigned int virq, unsigned int count)
{
	struct irq_data *data = irq_domain_get_irq_data(d, virq);
	struct dlpi *lpi = irq_data_get_irq_chip_data(data);
	u32 intid = data->hwirq;

	irq_domain_reset_irq_data(data);
	irq_domain_free_irqs_parent(d, virq, count);
	dlpi_remove(lpi, intid);
	ida_free(&used, intid);
	kfree(lpi);
}

/* Chooses a target before the core composes the message. */
static int domain_activate(struct irq_domain *d, struct irq_data *data, bool reserve)
{
	struct dlpi *lpi = irq_data_get_irq_chip_data(data);
	unsigned int cpu = lpi->cpu;
	int error;

	if (!dlpi_is_served(cpu))
		cpu = dlpi_choose(irq_data_get_affinity_mask(data), false);
	if (cpu >= nr_cpu_ids)
		cpu = dlpi_choose(cpu_online_mask, false);
	error = dlpi_move(lpi, data->hwirq, cpu);
	if (!error)
		irq_data_update_effective_affinity(data, cpumask_of(cpu));
	return error;
}

static void domain_deactivate(struct irq_domain *d, struct irq_data *data)
{
	dlpi_forget(irq_data_get_irq_chip_data(data), data->hwirq);
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

struct irq_domain *dlpi_pci_domain(void)
{
	return functions;
}

/* Creates the domains. Devices may use them at once, so this is the last step that can fail. */
static int __init create_domains(struct irq_domain *gic)
{
	struct irq_domain *domain = dlpi_create_parent(gic, end, &ops);
	struct fwnode_handle *name;

	functions = domain ? dlpi_create_pci_domain(domain) : NULL;
	if (domain && !functions) {
		name = domain->fwnode;
		irq_domain_remove(domain);
		if (is_fwnode_irqchip(name))
			irq_domain_free_fwnode(name);
	}
	return functions ? 0 : -ENOMEM;
}

/* Returns an error if the GIC or its node forbids Direct LPIs. An ITS owns the LPIs. */
static int __init check(struct device_node *gic, const struct rdists *all)
{
	struct device_node *its = of_find_compatible_node(NULL, NULL, "arm,gic-v3-its");

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
	if (!(all->gicd_typer & GICD_TYPER_LPIS) || !all->has_direct_lpi) {
		pr_err("%pOF: no Direct LPIs (GICD_TYPER is %#x)\n", gic, all->gicd_typer);
		return -ENODEV;
	}
	return 0;
}

/* Starts the redistributors, and then lets devices use them. */
int __init dlpi_init(struct irq_domain *gic, struct rdists *all)
{
	unsigned int lpis = GICD_TYPER_NUM_LPIS(all->gicd_typer);
	int error = check(to_of_node(gic->fwnode), all) ?: its_allocate_direct_lpis();

	if (error < 0)
		return error;
	/* Otherwise, each INTID above 8191 is an LPI. */
	end = BIT(error);
	if (lpis > 1)
		end = min_t(u64, end, DLPI_FIRST + BIT_ULL(lpis));
	error = dlpi_start(all, end);
	if (error)
		return error;
	error = create_domains(gic);
	if (error)
		dlpi_stop();
	else
		pr_info("LPIs %u to %u, the doorbell of CPU 0 is %#llx\n", DLPI_FIRST, end - 1,
			dlpi_doorbell(0));
	return error;
}
