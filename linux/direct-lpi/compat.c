// SPDX-License-Identifier: GPL-2.0-only
/*
 * What unmodified kernels do not export: the GIC driver's redistributors, the ITS driver's LPI
 * tables, and the start beside them. Not part of a kernel that has the driver built in.
 */
#include "direct-lpi.h"

#include <linux/io.h>
#include <linux/module.h>
#include <linux/of_address.h>
#include <linux/of_reserved_mem.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/xarray.h>

/* The data of a PCI MSI has 16 bits, and is the INTID. */
static unsigned int id_bits = 16;
module_param(id_bits, uint, 0444);
MODULE_PARM_DESC(id_bits, "Number of INTID bits, from 14 to 16. Fewer bits need smaller tables");

struct frame {
	void __iomem *base;
	phys_addr_t address;
	/* Number among all redistributors, from 1, which is the same in each kernel. */
	unsigned int place;
	/* One bit for each INTID. Belongs to the redistributor while LPIs are enabled. */
	unsigned long *pending;
	phys_addr_t pending_address;
};

static DEFINE_PER_CPU(typeof(*((struct rdists *)NULL)->rdist), rdist);
static struct rdists rdists = { .rdist = &rdist, .has_direct_lpi = true };
static DEFINE_PER_CPU(struct frame *, frames);
/* Each redistributor, by its affinity. */
static DEFINE_XARRAY(all_frames);
static unsigned int frame_count;
static struct device_node *node;
/* Kernels that do not mask interrupts by priority use this one. */
static u8 priority = 0xa0;
/*
 * Memory that the next kernel does not use either (memory-region in the GIC's node), or NULL. The
 * configuration table is at its start, and the pending tables follow.
 */
static struct reserved_mem *reserved;
static void *reserved_tables;

static int __init find_in_region(u32 region, u32 stride)
{
	struct resource resource;
	int error = of_address_to_resource(node, 1 + region, &resource);
	void __iomem *base = error ? NULL : of_iomap(node, 1 + region);
	u64 offset = 0, typer = 0;

	if (!base)
		return error ?: -ENOMEM;
	while (!error && !(typer & GICR_TYPER_LAST) &&
	       offset + SZ_128K <= resource_size(&resource)) {
		struct frame *frame = kzalloc(sizeof(*frame), GFP_KERNEL);

		if (!frame)
			return -ENOMEM;
		typer = readq_relaxed(base + offset + GICR_TYPER);
		frame->base = base + offset;
		frame->address = resource.start + offset;
		frame->place = ++frame_count;
		rdists.has_direct_lpi &= !!(typer & GICR_TYPER_DirectLPIS);
		error = xa_err(xa_store(&all_frames, typer >> 32, frame, GFP_KERNEL));
		offset += stride ?: typer & GICR_TYPER_VLPIS ? SZ_256K : SZ_128K;
	}
	return error;
}

/*
 * LPIs must have the priority that the GIC's driver gives to SPIs: a kernel with pseudo-NMIs masks
 * only that one. A pseudo-NMI has a lower value.
 */
static int __init read_distributor(void)
{
	void __iomem *distributor = of_iomap(node, 0);
	unsigned int spi;
	u8 found = 0;

	if (!distributor)
		return -ENOMEM;
	rdists.gicd_typer = readl_relaxed(distributor + GICD_TYPER);
	for (spi = 32; spi < GICD_TYPER_SPIS(rdists.gicd_typer); spi++)
		found = max(found, readb_relaxed(distributor + GICD_IPRIORITYR + spi));
	priority = found ?: priority;
	iounmap(distributor);
	return 0;
}

static int __init find_redistributors(void)
{
	u32 regions = 1, at, stride = 0;
	int error = read_distributor();

	of_property_read_u32(node, "#redistributor-regions", &regions);
	of_property_read_u32(node, "redistributor-stride", &stride);
	for (at = 0; !error && at < regions; at++)
		error = find_in_region(at, stride);
	return error;
}

/* Finds reserved memory for the tables, if firmware reserves any that nobody else may use. */
static int __init find_memory(void)
{
	struct device_node *region = of_parse_phandle(node, "memory-region", 0);

	if (!region)
		return 0;
	if (!of_property_read_bool(region, "reusable"))
		reserved = of_reserved_mem_lookup(region);
	of_node_put(region);
	if (!reserved || !IS_ALIGNED(reserved->base, SZ_64K) ||
	    reserved->size / SZ_64K <= frame_count) {
		pr_err("%pOF: memory-region must be reserved and not reusable, with %u aligned tables of 64 KiB\n",
		       node, 1 + frame_count);
		return -EINVAL;
	}
	/* The linear mapping may lack the memory, for example in a crash kernel. */
	reserved_tables = memremap(reserved->base, reserved->size, MEMREMAP_WB);
	return reserved_tables ? 0 : -ENOMEM;
}

/* Returns a table of 64 KiB, aligned to its size. Its place counts if memory is reserved. */
static void *__init allocate_table(unsigned int place, phys_addr_t *address)
{
	void *table = reserved ? reserved_tables + place * SZ_64K :
				 (void *)__get_free_pages(GFP_KERNEL, get_order(SZ_64K));

	*address = reserved ? reserved->base + place * SZ_64K : virt_to_phys(table);
	return table;
}

/* The tables stay if a later step fails: not every redistributor can be told to forget them. */
int __init its_allocate_direct_lpis(void)
{
	int error = find_memory();
	struct frame *frame;
	unsigned long at;

	if (error)
		return error;
	id_bits = min(GICD_TYPER_ID_BITS(rdists.gicd_typer), clamp(id_bits, 14U, 16U));
	rdists.prop_table_va = allocate_table(0, &rdists.prop_table_pa);
	if (!rdists.prop_table_va)
		return -ENOMEM;
	its_clear_direct_lpis();
	xa_for_each(&all_frames, at, frame) {
		frame->pending = allocate_table(frame->place, &frame->pending_address);
		if (!frame->pending)
			return -ENOMEM;
	}
	return id_bits;
}

void its_write_direct_lpi(u32 intid, bool enabled)
{
	u8 *configuration = rdists.prop_table_va;

	configuration[intid - DLPI_FIRST] =
		priority | LPI_PROP_GROUP1 | (enabled ? LPI_PROP_ENABLED : 0);
	/* The redistributor observes the byte before the write to GICR_INVLPIR. */
	dsb(ishst);
}

void its_clear_direct_lpis(void)
{
	memset(rdists.prop_table_va, priority | LPI_PROP_GROUP1, BIT(id_bits) - DLPI_FIRST);
	dsb(ishst);
}

unsigned long *its_disable_direct_lpis(void)
{
	struct frame *frame = __this_cpu_read(frames);
	u32 ctlr = readl_relaxed(frame->base + GICR_CTLR);

	if (!(ctlr & GICR_CTLR_CES) || dlpi_set_enabled(frame->base, false))
		return NULL;
	return frame->pending;
}

static bool has_our_tables(const struct frame *frame)
{
	u64 tables = readq_relaxed(frame->base + GICR_PROPBASER);
	u64 pending = readq_relaxed(frame->base + GICR_PENDBASER);

	return (tables & GICR_PROPBASER_IDBITS_MASK) == id_bits - 1 &&
	       GICR_PROPBASER_ADDRESS(tables) == rdists.prop_table_pa &&
	       GICR_PENDBASER_ADDRESS(pending) == frame->pending_address;
}

int its_enable_direct_lpis(void)
{
	unsigned int cpu = smp_processor_id();
	u64 tables, mpidr = read_cpuid_mpidr();
	u32 affinity = MPIDR_AFFINITY_LEVEL(mpidr, 3) << 24 | (mpidr & 0xffffff);
	struct frame *frame = xa_load(&all_frames, affinity);
	int error;

	if (!frame)
		return -ENODEV;
	__this_cpu_write(frames, frame);
	__this_cpu_write(rdist.rd_base, frame->base);
	__this_cpu_write(rdist.phys_base, frame->address);
	if (readl_relaxed(frame->base + GICR_CTLR) & GICR_CTLR_ENABLE_LPIS) {
		bool is_ours = has_our_tables(frame), is_off = its_disable_direct_lpis();

		if (!is_ours)
			pr_err("CPU %u: LPIs %s enabled, with tables in unknown memory\n", cpu,
			       is_off ? "were left" : "are already");
		if (!is_off)
			return is_ours ? 1 : -EBUSY;
	}
	memset(frame->pending, 0, SZ_64K);
	tables = rdists.prop_table_pa | GICR_PROPBASER_InnerShareable | GICR_PROPBASER_RaWaWb |
		 (id_bits - 1);
	writeq_relaxed(tables, frame->base + GICR_PROPBASER);
	if (!(readq_relaxed(frame->base + GICR_PROPBASER) & GICR_PROPBASER_SHAREABILITY_MASK)) {
		pr_err("CPU %u: the redistributor does not snoop caches: not supported\n", cpu);
		return -EOPNOTSUPP;
	}
	tables = frame->pending_address | GICR_PENDBASER_InnerShareable | GICR_PENDBASER_RaWaWb;
	writeq_relaxed(tables, frame->base + GICR_PENDBASER);
	error = dlpi_set_enabled(frame->base, true);
	if (error)
		pr_err("CPU %u: LPIs cannot be enabled (%d)\n", cpu, error);
	else if (!reserved && !(readl_relaxed(frame->base + GICR_CTLR) & GICR_CTLR_CES))
		pr_warn_once("LPIs stay enabled: without memory-region, start no other kernel\n");
	return error;
}

/* There is no exit: an interrupt controller must not go away while devices may send messages. */
static int __init direct_lpi_init(void)
{
	struct irq_domain *gic;
	int error;

	node = of_find_compatible_node(NULL, NULL, "arm,gic-v3");
	gic = node ? irq_find_host(node) : NULL;
	if (!gic) {
		pr_err("no GICv3 in the devicetree; ACPI is not supported\n");
		return -ENODEV;
	}
	error = find_redistributors() ?: dlpi_register_shutdown() ?: dlpi_init(gic, &rdists);
	if (!error)
		dlpi_serve_pci(dlpi_pci_domain(), node);
	return error;
}
module_init(direct_lpi_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Direct LPIs of a GICv3 without an ITS");
