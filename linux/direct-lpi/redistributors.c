// SPDX-License-Identifier: GPL-2.0-only
/*
 * The redistributors of a GICv3 without an ITS: their LPI tables, the doorbells GICR_SETLPIR, and
 * what happens to pending LPIs when a CPU goes offline.
 */
#include "direct-lpi.h"

#include <linux/bitmap.h>
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/iopoll.h>
#include <linux/irqchip/arm-gic-v3.h>
#include <linux/module.h>
#include <linux/of_address.h>
#include <linux/of_reserved_mem.h>
#include <linux/percpu.h>
#include <linux/sizes.h>

/* Time after which a redistributor that is still busy is broken. */
#define TIMEOUT_US 1000000
#define FIRST_SPI 32
/* The priority of interrupts in kernels that do not mask interrupts by priority. */
#define DEFAULT_PRIORITY 0xa0

struct redistributor {
	void __iomem *base;
	phys_addr_t address;
	/* Number among all redistributors, which is the same in each kernel of the machine. */
	unsigned int place;
	/* One bit for each INTID. Belongs to the redistributor while LPIs are enabled. */
	unsigned long *pending;
	phys_addr_t pending_address;
};

static DEFINE_PER_CPU(struct redistributor, redistributors);
DEFINE_RAW_SPINLOCK(dlpi_lock);

static u8 *configuration;
/* The priority of all LPIs. */
static u8 priority = DEFAULT_PRIORITY;
static phys_addr_t configuration_address;
static unsigned int intids;
static unsigned int redistributor_count;
/*
 * Memory that the next kernel does not use either (memory-region in the GIC's node), or NULL. The
 * configuration table is at its start, and the pending tables follow.
 */
static struct reserved_mem *reserved;
static void *reserved_tables;
/* Set when devices no longer need LPIs, with the CPU hotplug lock and dlpi_lock held. */
static bool is_shut_down;
/* LPIs that moved from a CPU while it went offline. They may be pending there. */
static unsigned long *left;

static bool blind;
module_param(blind, bool, 0444);
MODULE_PARM_DESC(blind, "Ignore GICR_CTLR.CES: resend what may be pending at an offline CPU");

/* Messages that were sent again without knowledge of whether they were lost, by INTID. */
#define MOST_RESENT 256
static u16 resent[MOST_RESENT];
static unsigned int resent_count;

static struct redistributor *redistributor_of(unsigned int cpu)
{
	return per_cpu_ptr(&redistributors, cpu);
}

/*
 * LPIs must have the priority that the GIC's driver gives to SPIs: a kernel with pseudo-NMIs masks
 * only that one. A pseudo-NMI has a lower value.
 */
void dlpi_copy_priority(void __iomem *distributor)
{
	unsigned int spi, end = GICD_TYPER_SPIS(readl_relaxed(distributor + GICD_TYPER));
	u8 found = 0;

	for (spi = FIRST_SPI; spi < end; spi++)
		found = max(found, readb_relaxed(distributor + GICD_IPRIORITYR + spi));
	priority = found ?: DEFAULT_PRIORITY;
}

u64 dlpi_doorbell(unsigned int cpu)
{
	return redistributor_of(cpu)->address + GICR_SETLPIR;
}

/*
 * Writes a register that takes an INTID, and waits until the redistributor has acted on it. Writing
 * another one before GICR_SYNCR.Busy is 0 is CONSTRAINED UNPREDICTABLE.
 */
static void command(unsigned int cpu, u32 offset, u32 intid)
{
	void __iomem *base = redistributor_of(cpu)->base;
	u32 busy;

	lockdep_assert_held(&dlpi_lock);
	gic_write_lpir(intid, base + offset);
	if (readl_relaxed_poll_timeout_atomic(base + GICR_SYNCR, busy, !(busy & 1), 1, TIMEOUT_US))
		pr_err_ratelimited("CPU %u: GICR_SYNCR stays busy at LPI %u\n", cpu, intid);
}

/*
 * Writes an LPI's configuration byte. Its redistributor must be told to read the byte. After the
 * shutdown, no LPI is enabled: the next kernel does not expect any.
 */
void dlpi_configure(u32 intid, bool enabled)
{
	lockdep_assert_held(&dlpi_lock);
	enabled = enabled && !is_shut_down;
	configuration[intid - DLPI_FIRST] =
		priority | LPI_PROP_GROUP1 | (enabled ? LPI_PROP_ENABLED : 0);
	/* The redistributor observes the byte before the write to GICR_INVLPIR. */
	dsb(ishst);
}

void dlpi_invalidate(unsigned int cpu, u32 intid)
{
	command(cpu, GICR_INVLPIR, intid);
}

/* LPIs stay enabled at an offline CPU unless GICR_CTLR.CES is 1. */
static bool has_lpis(unsigned int cpu)
{
	return readl_relaxed(redistributor_of(cpu)->base + GICR_CTLR) & GICR_CTLR_ENABLE_LPIS;
}

/* Fails where LPIs are disabled, because the redistributor would ignore the write. */
int dlpi_set_pending(unsigned int cpu, u32 intid, bool pending)
{
	unsigned long flags;
	bool is_on;

	raw_spin_lock_irqsave(&dlpi_lock, flags);
	is_on = has_lpis(cpu);
	if (is_on)
		command(cpu, pending ? GICR_SETLPIR : GICR_CLRLPIR, intid);
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
	return is_on ? 0 : -ESHUTDOWN;
}

/* Clears an LPI wherever a late message may have made it pending, before it has a new owner. */
void dlpi_forget(u32 intid)
{
	unsigned long flags;
	unsigned int cpu;

	raw_spin_lock_irqsave(&dlpi_lock, flags);
	dlpi_configure(intid, false);
	for_each_possible_cpu(cpu) {
		if (!has_lpis(cpu))
			continue;
		command(cpu, GICR_INVLPIR, intid);
		command(cpu, GICR_CLRLPIR, intid);
	}
	__clear_bit(intid, left);
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
}

/* Notes that an LPI has a new target because its CPU goes offline. */
void dlpi_leave(u32 intid)
{
	lockdep_assert_held(&dlpi_lock);
	__set_bit(intid, left);
}

static int set_enabled(unsigned int cpu, bool on)
{
	void __iomem *base = redistributor_of(cpu)->base;
	u32 ctlr = readl_relaxed(base + GICR_CTLR);

	dsb(sy);
	ctlr = on ? ctlr | GICR_CTLR_ENABLE_LPIS : ctlr & ~GICR_CTLR_ENABLE_LPIS;
	writel_relaxed(ctlr, base + GICR_CTLR);
	if (readl_relaxed_poll_timeout_atomic(base + GICR_CTLR, ctlr, !(ctlr & GICR_CTLR_RWP), 1,
					      TIMEOUT_US))
		return -ETIMEDOUT;
	dsb(sy);
	return on == !!(ctlr & GICR_CTLR_ENABLE_LPIS) ? 0 : -EIO;
}

static bool can_disable(unsigned int cpu)
{
	return !blind && readl_relaxed(redistributor_of(cpu)->base + GICR_CTLR) & GICR_CTLR_CES;
}

/* Enables LPIs at a CPU that is about to come online, so that no message to it is ignored. */
static int cpu_comes(unsigned int cpu)
{
	void __iomem *base = redistributor_of(cpu)->base;
	unsigned long flags;
	u64 tables;
	int error;

	if (is_shut_down)
		return -ESHUTDOWN;
	if (has_lpis(cpu)) {
		/* Changes of the configuration were only announced to CPUs that were online. */
		raw_spin_lock_irqsave(&dlpi_lock, flags);
		command(cpu, GICR_INVALLR, 0);
		raw_spin_unlock_irqrestore(&dlpi_lock, flags);
		return 0;
	}
	tables = configuration_address | GICR_PROPBASER_InnerShareable |
		 GICR_PROPBASER_RaWaWb | (ilog2(intids) - 1);
	writeq_relaxed(tables, base + GICR_PROPBASER);
	if (!(readq_relaxed(base + GICR_PROPBASER) & GICR_PROPBASER_SHAREABILITY_MASK)) {
		pr_err("CPU %u: the redistributor does not snoop caches; not supported\n", cpu);
		return -EOPNOTSUPP;
	}
	tables = redistributor_of(cpu)->pending_address | GICR_PENDBASER_InnerShareable |
		 GICR_PENDBASER_RaWaWb;
	writeq_relaxed(tables, base + GICR_PENDBASER);
	error = set_enabled(cpu, true);
	if (error)
		pr_err("CPU %u: LPIs cannot be enabled (%d)\n", cpu, error);
	return error;
}

/* Refuses a CPU whose redistributor lost its state while the CPU started. */
static int cpu_is_online(unsigned int cpu)
{
	if (readl_relaxed(redistributor_of(cpu)->base + GICR_CTLR) & GICR_CTLR_ENABLE_LPIS)
		return 0;
	pr_err("CPU %u: starting the CPU disabled its LPIs\n", cpu);
	return -EIO;
}

/* An interrupt that still targets the CPU was shut down with it, and is not carried. */
static void carry(unsigned int cpu, u32 intid)
{
	unsigned int target = dlpi_target(intid);

	if (target != cpu && target < nr_cpu_ids)
		command(target, GICR_SETLPIR, intid);
}

/*
 * Carries pending LPIs of a CPU that went offline to their new targets. Disabled, the redistributor
 * writes what is pending to its table (GICR_CTLR.CES is 1). Otherwise nobody can tell, and each LPI
 * that left the CPU is sent again: its handler may run once too often, but never once too few.
 */
static int cpu_is_gone(unsigned int cpu)
{
	unsigned long *pending = redistributor_of(cpu)->pending, *from, flags;
	unsigned int intid = DLPI_FIRST - 1;
	bool known;

	raw_spin_lock_irqsave(&dlpi_lock, flags);
	known = can_disable(cpu) && !set_enabled(cpu, false);
	from = known ? pending : left;
	/* After the shutdown, nothing is carried. */
	if (is_shut_down)
		intid = intids;
	while ((intid = find_next_bit(from, intids, intid + 1)) < intids) {
		if (!known && resent_count < MOST_RESENT)
			resent[resent_count++] = intid;
		carry(cpu, intid);
	}
	bitmap_zero(left, intids);
	if (known)
		bitmap_zero(pending, intids);
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
	return 0;
}

static u64 affinity_of(unsigned int cpu)
{
	struct device_node *node = of_get_cpu_node(cpu, NULL);
	const __be32 *reg = node ? of_get_property(node, "reg", NULL) : NULL;
	u64 mpidr = reg ? of_read_number(reg, of_n_addr_cells(node)) : U64_MAX;

	of_node_put(node);
	return (mpidr & 0xffffff) | (mpidr >> 32 & 0xff) << 24;
}

static int add_redistributor(void __iomem *base, phys_addr_t address)
{
	u64 typer = readq_relaxed(base + GICR_TYPER);
	unsigned int cpu;

	if (!(typer & GICR_TYPER_DirectLPIS)) {
		pr_err("the redistributor at %pa has no GICR_SETLPIR (DirectLPI is 0)\n", &address);
		return -ENODEV;
	}
	for_each_possible_cpu(cpu) {
		if (affinity_of(cpu) != FIELD_GET(GICR_TYPER_AFFINITY, typer))
			continue;
		redistributor_of(cpu)->base = base;
		redistributor_of(cpu)->address = address;
		redistributor_of(cpu)->place = redistributor_count;
	}
	redistributor_count++;
	return 0;
}

static int find_in_region(struct device_node *gic, u32 region, u32 stride)
{
	struct resource resource;
	void __iomem *base;
	u64 offset = 0, typer;
	int error;

	error = of_address_to_resource(gic, 1 + region, &resource);
	base = error ? NULL : of_iomap(gic, 1 + region);
	if (!base) {
		pr_err("%pOF: no redistributor region %u\n", gic, region);
		return error ?: -ENOMEM;
	}
	do {
		if (offset + SZ_128K > resource_size(&resource))
			break;
		typer = readq_relaxed(base + offset + GICR_TYPER);
		error = add_redistributor(base + offset, resource.start + offset);
		if (error)
			return error;
		offset += stride ?: typer & GICR_TYPER_VLPIS ? SZ_256K : SZ_128K;
	} while (!(typer & GICR_TYPER_LAST));
	return 0;
}

/* Finds reserved memory for the tables, if firmware reserves any that nobody else may use. */
static int find_memory(struct device_node *gic)
{
	struct device_node *node = of_parse_phandle(gic, "memory-region", 0);
	bool is_ours = node && !of_property_read_bool(node, "reusable");

	if (!node)
		return 0;
	reserved = of_reserved_mem_lookup(node);
	of_node_put(node);
	if (!reserved || !is_ours || !IS_ALIGNED(reserved->base, SZ_64K) ||
	    reserved->size / SZ_64K <= redistributor_count) {
		pr_err("%pOF: memory-region must be reserved and not reusable, with %u aligned tables of 64 KiB\n",
		       gic, 1 + redistributor_count);
		return -EINVAL;
	}
	/* The linear mapping may lack the memory, for example in a crash kernel. */
	reserved_tables = memremap(reserved->base, reserved->size, MEMREMAP_WB);
	return reserved_tables ? 0 : -ENOMEM;
}

int dlpi_find_redistributors(struct device_node *gic)
{
	u32 regions = 1, at, stride = 0;
	unsigned int cpu, first = cpumask_first(cpu_possible_mask);
	int error;

	of_property_read_u32(gic, "#redistributor-regions", &regions);
	of_property_read_u32(gic, "redistributor-stride", &stride);
	for (at = 0; at < regions; at++) {
		error = find_in_region(gic, at, stride);
		if (error)
			return error;
	}
	for_each_possible_cpu(cpu) {
		if (!redistributor_of(cpu)->base) {
			pr_err("CPU %u has no redistributor\n", cpu);
			return -ENODEV;
		}
		/* A PCI MSI cannot change both halves of its address at once. */
		if (upper_32_bits(dlpi_doorbell(cpu)) != upper_32_bits(dlpi_doorbell(first))) {
			pr_err("CPU %u: doorbells lie on both sides of a 4 GiB boundary\n", cpu);
			return -EOPNOTSUPP;
		}
	}
	return find_memory(gic);
}

/* Returns true if a redistributor uses the tables that we would give it, in reserved memory. */
static bool has_our_tables(unsigned int cpu)
{
	struct redistributor *redistributor = redistributor_of(cpu);
	u64 tables = readq_relaxed(redistributor->base + GICR_PROPBASER);
	u64 pending = readq_relaxed(redistributor->base + GICR_PENDBASER);

	return reserved && (tables & GICR_PROPBASER_IDBITS_MASK) == ilog2(intids) - 1 &&
	       GICR_PROPBASER_ADDRESS(tables) == configuration_address &&
	       GICR_PENDBASER_ADDRESS(pending) == redistributor->pending_address;
}

/*
 * LPIs that another driver or another kernel enabled use tables that are not ours, unless that
 * kernel had the same reserved memory. LPIs that it left pending are cleared when they are
 * allocated.
 */
static int take_over(unsigned int cpu)
{
	bool was_on = has_lpis(cpu), is_ours = was_on && has_our_tables(cpu);

	if (was_on && (!can_disable(cpu) || set_enabled(cpu, false))) {
		if (is_ours)
			return 0;
		pr_err("CPU %u: LPIs are already enabled, with tables in unknown memory\n", cpu);
		return -EBUSY;
	}
	if (was_on && !is_ours)
		pr_warn("CPU %u: LPIs were left enabled, with tables in unknown memory\n", cpu);
	memset(redistributor_of(cpu)->pending, 0, SZ_64K);
	return 0;
}

/* Disables all LPIs, also where redistributors have copies of the table. */
static void disable_all(bool for_good)
{
	unsigned long flags;
	unsigned int cpu;

	raw_spin_lock_irqsave(&dlpi_lock, flags);
	is_shut_down = for_good;
	memset(configuration, priority | LPI_PROP_GROUP1, intids - DLPI_FIRST);
	dsb(ishst);
	for_each_possible_cpu(cpu)
		if (has_lpis(cpu))
			command(cpu, GICR_INVALLR, 0);
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
}

/* Returns a table of 64 KiB, aligned to its size. Its place counts if memory is reserved. */
static void *allocate_table(unsigned int place, phys_addr_t *address)
{
	void *table;

	if (reserved) {
		*address = reserved->base + place * SZ_64K;
		return reserved_tables + place * SZ_64K;
	}
	table = (void *)__get_free_pages(GFP_KERNEL, get_order(SZ_64K));
	*address = table ? virt_to_phys(table) : 0;
	return table;
}

static int allocate_tables(void)
{
	unsigned int cpu;

	left = bitmap_zalloc(intids, GFP_KERNEL);
	configuration = allocate_table(0, &configuration_address);
	if (!left || !configuration)
		return -ENOMEM;
	for_each_possible_cpu(cpu) {
		struct redistributor *redistributor = redistributor_of(cpu);

		redistributor->pending = allocate_table(1 + redistributor->place,
							&redistributor->pending_address);
		if (!redistributor->pending)
			return -ENOMEM;
	}
	return 0;
}

static void free_tables(void)
{
	unsigned int cpu;

	bitmap_free(left);
	if (reserved) {
		memunmap(reserved_tables);
		return;
	}
	free_pages((unsigned long)configuration, get_order(SZ_64K));
	for_each_possible_cpu(cpu)
		free_pages((unsigned long)redistributor_of(cpu)->pending, get_order(SZ_64K));
}

/* States of the CPU hotplug core. */
static int prepare_state, online_state;

int dlpi_start_redistributors(unsigned int id_bits)
{
	unsigned int cpu;
	int error;

	intids = BIT(id_bits);
	error = allocate_tables();
	for_each_possible_cpu(cpu)
		error = error ?: take_over(cpu);
	if (error) {
		free_tables();
		return error;
	}
	disable_all(false);
	/* From here on, the tables stay: not every redistributor can be told to forget them. */
	prepare_state = cpuhp_setup_state(CPUHP_BP_PREPARE_DYN, "irqchip/direct-lpi:prepare",
					  cpu_comes, cpu_is_gone);
	if (prepare_state < 0)
		return prepare_state;
	online_state = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "irqchip/direct-lpi:online",
					 cpu_is_online, NULL);
	return min(online_state, 0);
}

/* Ends the calls for CPUs that come and go, before a module that failed to load is freed. */
void dlpi_stop_redistributors(void)
{
	unsigned int cpu;

	if (online_state > 0)
		cpuhp_remove_state_nocalls(online_state);
	if (prepare_state > 0)
		cpuhp_remove_state_nocalls(prepare_state);
	for_each_possible_cpu(cpu)
		if (has_lpis(cpu) && can_disable(cpu))
			set_enabled(cpu, false);
}

/*
 * Ends the use of LPIs before another kernel owns the memory (kexec). No CPU that comes online
 * afterwards may enable them again, and no driver.
 */
void dlpi_shut_down(void)
{
	unsigned int cpu;

	cpus_read_lock();
	disable_all(true);
	for_each_possible_cpu(cpu)
		if (has_lpis(cpu) && (!can_disable(cpu) || set_enabled(cpu, false)) && !reserved)
			pr_warn("CPU %u: LPIs stay enabled, with tables in our memory\n", cpu);
	cpus_read_unlock();
}

static int resent_get(char *buffer, const struct kernel_param *p)
{
	unsigned int at;
	int length = 0;

	for (at = 0; at < resent_count; at++)
		length += sysfs_emit_at(buffer, length, "%u\n", dlpi_interrupt(resent[at]));
	return length;
}

static const struct kernel_param_ops resent_ops = { .get = resent_get };
module_param_cb(resent, &resent_ops, NULL, 0444);
MODULE_PARM_DESC(resent, "LPIs that were sent again because an offline CPU may have lost them");
