// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Runs the RFC's Direct LPI driver as a module of an unmodified kernel. Provides the redistributors
 * and the LPI tables, which the RFC takes from the ITS driver, and a PCI/MSI domain.
 */
#include <linux/bitmap.h>
#include <linux/irq.h>
#include <linux/module.h>
#include <linux/msi.h>
#include <linux/of.h>
#include <linux/of_address.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include "irq-gic-common.h"

#define ID_BITS 14
#define LPIS ((1 << ID_BITS) - 8192)
#define MOST_RESENT 1024

static struct rdists rdists;
static DECLARE_BITMAP(used, LPIS);
static DEFINE_MUTEX(used_lock);
static DEFINE_PER_CPU(atomic_t, lpis);
static struct fwnode_handle *direct_lpi;
static struct irq_domain *gic;

/* The interrupts that were sent again, in order. */
static u16 resent[MOST_RESENT];
static atomic_t resent_count;

u32 its_read_lpi_count(struct irq_data *d, int cpu)
{
	return atomic_read(per_cpu_ptr(&lpis, cpu));
}

void its_inc_lpi_count(struct irq_data *d, int cpu)
{
	atomic_inc(per_cpu_ptr(&lpis, cpu));
}

void its_dec_lpi_count(struct irq_data *d, int cpu)
{
	atomic_dec(per_cpu_ptr(&lpis, cpu));
}

unsigned int cpumask_pick_least_loaded(struct irq_data *d, const struct cpumask *mask)
{
	unsigned int cpu, least = nr_cpu_ids;

	for_each_cpu(cpu, mask)
		if (least >= nr_cpu_ids ||
		    its_read_lpi_count(d, cpu) < its_read_lpi_count(d, least))
			least = cpu;
	return least;
}

int its_irq_gic_domain_alloc(struct irq_domain *domain, unsigned int virq, irq_hw_number_t hwirq)
{
	struct irq_fwspec spec = {
		.fwnode = gic->fwnode,
		.param_count = 3,
		.param = { GIC_IRQ_TYPE_LPI, hwirq, IRQ_TYPE_EDGE_RISING },
	};

	return irq_domain_alloc_irqs_parent(domain, virq, 1, &spec);
}

unsigned long *its_lpi_alloc(int count, u32 *base, int *got)
{
	unsigned long *bitmap = bitmap_zalloc(count, GFP_KERNEL), at;

	if (!bitmap)
		return NULL;
	mutex_lock(&used_lock);
	at = bitmap_find_next_zero_area(used, LPIS, 0, count, count - 1);
	if (at < LPIS)
		bitmap_set(used, at, count);
	mutex_unlock(&used_lock);
	if (at >= LPIS) {
		bitmap_free(bitmap);
		return NULL;
	}
	*base = 8192 + at;
	*got = count;
	return bitmap;
}

/* The RFC frees the bitmap itself. */
void its_lpi_free(unsigned long *bitmap, u32 base, u32 count)
{
	mutex_lock(&used_lock);
	bitmap_clear(used, base - 8192, count);
	mutex_unlock(&used_lock);
}

int shim_register(struct fwnode_handle *fwnode)
{
	direct_lpi = fwnode;
	return 0;
}

static void __iomem *frame_of(int cpu)
{
	return per_cpu_ptr(rdists.rdist, cpu)->rd_base;
}

/*
 * Sets the effective affinity. The new redistributor may have an old copy of the configuration, and
 * a CPU that goes offline takes along what is pending there.
 */
void shim_move(struct irq_data *d, const struct cpumask *to)
{
	unsigned int old = cpumask_first(irq_data_get_effective_affinity_mask(d));
	void __iomem *frame = frame_of(cpumask_first(to));

	irq_data_update_effective_affinity(d, to);
	gic_write_lpir(d->hwirq, frame + GICR_INVLPIR);
	while (readl_relaxed(frame + GICR_SYNCR) & 1)
		cpu_relax();
	if (old < nr_cpu_ids && !cpu_online(old)) {
		resent[(atomic_inc_return(&resent_count) - 1) % MOST_RESENT] = d->irq;
		gic_write_lpir(d->hwirq, frame + GICR_SETLPIR);
	}
}

int shim_set_state(struct irq_data *d, enum irqchip_irq_state which, bool state)
{
	unsigned int cpu = cpumask_first(irq_data_get_effective_affinity_mask(d));

	if (which != IRQCHIP_STATE_PENDING || cpu >= nr_cpu_ids)
		return -EINVAL;
	gic_write_lpir(d->hwirq, frame_of(cpu) + (state ? GICR_SETLPIR : GICR_CLRLPIR));
	return 0;
}

/* Returns a CPU's affinity as the devicetree states it: most CPUs are offline now. */
static u64 affinity_of(int cpu)
{
	struct device_node *node = of_get_cpu_node(cpu, NULL);
	const __be32 *reg = node ? of_get_property(node, "reg", NULL) : NULL;
	u64 mpidr = reg ? of_read_number(reg, of_n_addr_cells(node)) : ~0ULL;

	of_node_put(node);
	return (mpidr & 0xffffff) | (mpidr >> 32 & 0xff) << 24;
}

static int add_redistributor(void __iomem *frame, phys_addr_t address)
{
	u64 typer = readq_relaxed(frame + GICR_TYPER);
	int cpu, found = 0;

	if (!(typer & GICR_TYPER_DirectLPIS)) {
		pr_err("direct-lpi-rfc: GICR_TYPER.DirectLPI is 0\n");
		return 0;
	}
	for_each_possible_cpu(cpu) {
		if (affinity_of(cpu) != typer >> 32)
			continue;
		raw_spin_lock_init(&per_cpu_ptr(rdists.rdist, cpu)->rd_lock);
		per_cpu_ptr(rdists.rdist, cpu)->rd_base = frame;
		per_cpu_ptr(rdists.rdist, cpu)->phys_base = address;
		found++;
	}
	return found;
}

static int find_redistributors(struct device_node *node)
{
	u32 regions = 1, region;
	int found = 0;

	of_property_read_u32(node, "#redistributor-regions", &regions);
	for (region = 0; region < regions; region++) {
		struct resource resource;
		void __iomem *base = of_iomap(node, 1 + region), *frame = base;
		u64 typer;

		if (!base || of_address_to_resource(node, 1 + region, &resource))
			return -ENXIO;
		do {
			typer = readq_relaxed(frame + GICR_TYPER);
			found += add_redistributor(frame, resource.start + (frame - base));
			frame += typer & GICR_TYPER_VLPIS ? SZ_256K : SZ_128K;
		} while (!(typer & GICR_TYPER_LAST));
	}
	return found == num_possible_cpus() ? 0 : -ENODEV;
}

static int enable_lpis(int cpu)
{
	void __iomem *base = frame_of(cpu);
	void *pending = (void *)__get_free_pages(GFP_KERNEL | __GFP_ZERO, get_order(SZ_64K));
	u64 value;

	if (!pending)
		return -ENOMEM;
	value = virt_to_phys(rdists.prop_table_va) | GICR_PROPBASER_InnerShareable |
		GICR_PROPBASER_RaWaWb | (ID_BITS - 1);
	writeq_relaxed(value, base + GICR_PROPBASER);
	value = virt_to_phys(pending) | GICR_PENDBASER_InnerShareable | GICR_PENDBASER_RaWaWb;
	writeq_relaxed(value, base + GICR_PENDBASER);
	dsb(sy);
	writel_relaxed(readl_relaxed(base + GICR_CTLR) | GICR_CTLR_ENABLE_LPIS, base + GICR_CTLR);
	dsb(sy);
	return readl_relaxed(base + GICR_CTLR) & GICR_CTLR_ENABLE_LPIS ? 0 : -EIO;
}

static void mask(struct irq_data *d)
{
	pci_msi_mask_irq(d);
	irq_chip_mask_parent(d);
}

static void unmask(struct irq_data *d)
{
	pci_msi_unmask_irq(d);
	irq_chip_unmask_parent(d);
}

static int prepare(struct irq_domain *domain, struct device *dev, int vectors,
		   msi_alloc_info_t *info)
{
	struct msi_domain_info *parent = msi_get_domain_info(domain->parent);

	info->scratchpad[0].ul = pci_dev_id(to_pci_dev(dev));
	return parent->ops->msi_prepare(domain->parent, dev, roundup_pow_of_two(vectors), info);
}

static struct irq_chip chip = {
	.name = "DLPI-MSI",
	.irq_mask = mask,
	.irq_unmask = unmask,
	.irq_eoi = irq_chip_eoi_parent,
};

static struct msi_domain_ops ops = { .msi_prepare = prepare };
static struct msi_domain_info info = {
	.flags = MSI_FLAG_USE_DEF_DOM_OPS | MSI_FLAG_USE_DEF_CHIP_OPS | MSI_FLAG_PCI_MSIX |
		 MSI_FLAG_MULTI_PCI_MSI,
	.ops = &ops,
	.chip = &chip,
};

static int __init shim_init(void)
{
	struct device_node *node = of_find_compatible_node(NULL, NULL, "arm,gic-v3");
	struct irq_domain *nexus, *domain;
	struct pci_dev *function = NULL;
	int cpu, error;

	gic = node ? irq_find_host(node) : NULL;
	rdists.rdist = __alloc_percpu(sizeof(*rdists.rdist), 8);
	rdists.prop_table_va = (void *)__get_free_pages(GFP_KERNEL, get_order(SZ_64K));
	if (!gic || !rdists.rdist || !rdists.prop_table_va)
		return -ENODEV;
	memset(rdists.prop_table_va, 0xa2, SZ_64K); /* priority 0xa0, group 1, disabled */
	error = find_redistributors(node);
	for_each_possible_cpu(cpu)
		error = error ?: enable_lpis(cpu);
	error = error ?: direct_lpi_init(gic, &rdists);
	if (error)
		return error;
	nexus = irq_find_matching_fwnode(direct_lpi, DOMAIN_BUS_NEXUS);
	domain = nexus ? pci_msi_create_irq_domain(direct_lpi, &info, nexus) : NULL;
	if (!domain)
		return -ENOMEM;
	for_each_pci_dev(function) {
		function->bus->bus_flags &= ~PCI_BUS_FLAGS_NO_MSI;
		dev_set_msi_domain(&function->dev, domain);
	}
	pr_info("direct-lpi-rfc: SETLPIR of CPU 0 at %pa\n",
		&per_cpu_ptr(rdists.rdist, 0)->phys_base);
	return 0;
}

static int resent_get(char *buffer, const struct kernel_param *p)
{
	int count = min(atomic_read(&resent_count), MOST_RESENT), length = 0, i;

	for (i = 0; i < count; i++)
		length += sysfs_emit_at(buffer, length, "%u\n", resent[i]);
	return length;
}

static const struct kernel_param_ops resent_ops = { .get = resent_get };
module_param_cb(resent, &resent_ops, NULL, 0444);

module_init(shim_init);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Direct LPIs without an ITS, by the RFC's driver");
