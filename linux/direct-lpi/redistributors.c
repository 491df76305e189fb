// SPDX-License-Identifier: GPL-2.0-only
/*
 * The redistributors of a GICv3 without an ITS: the doorbells GICR_SETLPIR, and what happens to
 * LPIs when a CPU comes, goes or loses power.
 *
 * A redistributor may have no power while its CPU is off. Each CPU therefore enables and disables
 * the LPIs of its own redistributor. Others access it only in between.
 */
#include "direct-lpi.h"

#include <linux/cpu.h>
#include <linux/cpu_pm.h>
#include <linux/cpuhotplug.h>
#include <linux/io.h>
#include <linux/iopoll.h>
#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include <linux/smp.h>

/* Time after which a redistributor that is still busy is broken. */
#define TIMEOUT_US 1000000

/*
 * Serializes changes of the configuration table and of targets with the invalidations that make
 * redistributors read them. Also keeps GICR_INVLPIR from being written while GICR_SYNCR.Busy is set
 * by another invalidation. Taken with interrupts disabled, inside of a descriptor's lock.
 */
static DEFINE_RAW_SPINLOCK(dlpi_lock);

static struct rdists *rdists;
/* The LPIs in use, by INTID, LPI or not. */
static struct dlpi **lpis;
static unsigned int intids;
/* CPUs that have enabled the LPIs of their redistributors. */
static struct cpumask served;
/* CPUs whose LPIs were enabled before: an LPI that nobody uses yet may be pending there. */
static struct cpumask inherited;
/* Set when devices no longer need LPIs. */
static bool is_shut_down;

/* The state of CPUs that come and go, next to the one of the GIC's driver. */
#ifdef MODULE
/* No kernel has both a GICv3 and a HiP04's controller. */
#define STARTING CPUHP_AP_IRQ_HIP04_STARTING
#else
#define STARTING CPUHP_AP_IRQ_GIC_DIRECT_LPI_STARTING
#endif

static void __iomem *base_of(unsigned int cpu)
{
	return *per_cpu_ptr(&rdists->rdist->rd_base, cpu);
}

u64 dlpi_doorbell(unsigned int cpu)
{
	return *per_cpu_ptr(&rdists->rdist->phys_base, cpu) + GICR_SETLPIR;
}

/* Returns a CPU that can take LPIs, or nr_cpu_ids. */
unsigned int dlpi_choose(const struct cpumask *mask, bool first)
{
	return first ? cpumask_first_and(mask, &served) :
		       cpumask_any_and_distribute(mask, &served);
}

bool dlpi_is_served(unsigned int cpu)
{
	return cpu < nr_cpu_ids && cpumask_test_cpu(cpu, &served);
}

/*
 * Writes a register that takes an INTID, and waits until the redistributor has acted on it. Writing
 * another one before GICR_SYNCR.Busy is 0 is CONSTRAINED UNPREDICTABLE.
 */
static void command(unsigned int cpu, u32 offset, u32 intid)
{
	void __iomem *base = base_of(cpu);
	u32 busy;

	lockdep_assert_held(&dlpi_lock);
	gic_write_lpir(intid, base + offset);
	if (readl_relaxed_poll_timeout_atomic(base + GICR_SYNCR, busy, !(busy & 1), 1, TIMEOUT_US))
		pr_err_ratelimited("CPU %u: GICR_SYNCR stays busy at LPI %u\n", cpu, intid);
}

/* Enables or disables the LPIs of a redistributor, which must be that of this CPU. */
int dlpi_set_enabled(void __iomem *base, bool on)
{
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

/*
 * Enables or disables an LPI, wherever its redistributors may have a copy of its configuration.
 * After the shutdown, no LPI is enabled: the next kernel does not expect any.
 */
void dlpi_configure(struct dlpi *lpi, u32 intid, bool enabled)
{
	unsigned long flags;
	unsigned int cpu;

	raw_spin_lock_irqsave(&dlpi_lock, flags);
	its_write_direct_lpi(intid, enabled && !is_shut_down);
	for_each_cpu_and(cpu, &lpi->visited, &served)
		command(cpu, GICR_INVLPIR, intid);
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
}

/*
 * The first half of a move: the new redistributor reads the configuration of the LPI, of which it
 * may have an old copy. The second half is the message. A message that is already pending at the
 * old redistributor is taken there.
 */
int dlpi_move(struct dlpi *lpi, u32 intid, unsigned int cpu)
{
	unsigned long flags;
	int error = -EINVAL;

	raw_spin_lock_irqsave(&dlpi_lock, flags);
	if (dlpi_is_served(cpu)) {
		command(cpu, GICR_INVLPIR, intid);
		lpi->cpu = cpu;
		cpumask_set_cpu(cpu, &lpi->visited);
		error = 0;
	}
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
	return error;
}

/* Fails where LPIs are disabled, because the redistributor would ignore the write. */
int dlpi_set_pending(struct dlpi *lpi, u32 intid, bool pending)
{
	unsigned long flags;
	int error = -ESHUTDOWN;

	raw_spin_lock_irqsave(&dlpi_lock, flags);
	if (dlpi_is_served(lpi->cpu)) {
		command(lpi->cpu, pending ? GICR_SETLPIR : GICR_CLRLPIR, intid);
		error = 0;
	}
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
	return error;
}

static void forget(struct dlpi *lpi, u32 intid)
{
	unsigned int cpu;

	its_write_direct_lpi(intid, false);
	for_each_cpu_and(cpu, &lpi->visited, &served) {
		command(cpu, GICR_INVLPIR, intid);
		command(cpu, GICR_CLRLPIR, intid);
	}
}

/* Disables an LPI, and clears it wherever a late message may have made it pending. */
void dlpi_forget(struct dlpi *lpi, u32 intid)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&dlpi_lock, flags);
	forget(lpi, intid);
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
}

/* An earlier kernel may have left the LPI pending, where its LPIs stayed enabled. */
void dlpi_add(struct dlpi *lpi, u32 intid)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&dlpi_lock, flags);
	cpumask_copy(&lpi->visited, &inherited);
	lpis[intid] = lpi;
	forget(lpi, intid);
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
}

void dlpi_remove(struct dlpi *lpi, u32 intid)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&dlpi_lock, flags);
	forget(lpi, intid);
	lpis[intid] = NULL;
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
}

/*
 * Sends LPIs that are pending at this CPU to their targets. Without a table, nobody can tell what
 * is pending, and each LPI whose message has named the CPU is sent again: its handler may run once
 * too often, but never once too few. An LPI that still targets a CPU that goes off was shut down.
 */
static void carry(unsigned int cpu, const unsigned long *pending)
{
	u32 intid;

	for (intid = DLPI_FIRST; intid < intids; intid++) {
		struct dlpi *lpi = lpis[intid];

		if (!lpi || !cpumask_test_cpu(cpu, &lpi->visited))
			continue;
		if (!pending)
			command(cpu, GICR_CLRLPIR, intid);
		if (lpi->cpu != cpu)
			cpumask_clear_cpu(cpu, &lpi->visited);
		if (dlpi_is_served(lpi->cpu) && (!pending || test_bit(intid, pending)))
			command(lpi->cpu, GICR_SETLPIR, intid);
	}
}

/* Clears what an earlier kernel, or the CPU before it went off, has left pending. */
static void inherit(unsigned int cpu)
{
	u32 intid;

	cpumask_set_cpu(cpu, &inherited);
	for (intid = DLPI_FIRST; intid < intids; intid++)
		if (lpis[intid])
			command(cpu, GICR_CLRLPIR, intid);
}

/* A PCI MSI cannot change both halves of its address at once. */
static bool can_serve(unsigned int cpu)
{
	unsigned int other = cpumask_any(&served);

	return other >= nr_cpu_ids ||
	       upper_32_bits(dlpi_doorbell(cpu)) == upper_32_bits(dlpi_doorbell(other));
}

/*
 * Enables the LPIs of a CPU, which calls this itself. A CPU whose LPIs cannot be enabled is never a
 * target.
 */
static void enable(unsigned int cpu)
{
	int was_on = its_enable_direct_lpis();

	if (was_on < 0)
		return;
	if (!can_serve(cpu)) {
		pr_err("CPU %u: doorbells lie on both sides of a 4 GiB boundary\n", cpu);
		its_disable_direct_lpis();
		return;
	}
	/* Changes of the configuration were only announced to CPUs that were on. */
	command(cpu, GICR_INVALLR, 0);
	if (was_on)
		inherit(cpu);
	cpumask_set_cpu(cpu, &served);
}

/* A CPU without LPIs comes online like others. */
static int cpu_starts(unsigned int cpu)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&dlpi_lock, flags);
	enable(cpu);
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
	return 0;
}

/* Disables the LPIs of a CPU that goes off, which calls this itself after interrupts have moved. */
static int cpu_dies(unsigned int cpu)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&dlpi_lock, flags);
	if (cpumask_test_and_clear_cpu(cpu, &served)) {
		unsigned long *pending = its_disable_direct_lpis();

		/* After the shutdown, nothing is carried. */
		if (!is_shut_down)
			carry(cpu, pending);
	}
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
	return 0;
}

/* The redistributor may have lost its power in a suspend, or together with an idle CPU. */
static int cpu_wakes(struct notifier_block *block, unsigned long action, void *data)
{
	unsigned int cpu = smp_processor_id();

	if (action != CPU_PM_EXIT || !dlpi_is_served(cpu) ||
	    readl_relaxed(base_of(cpu) + GICR_CTLR) & GICR_CTLR_ENABLE_LPIS)
		return NOTIFY_OK;
	raw_spin_lock(&dlpi_lock);
	cpumask_clear_cpu(cpu, &served);
	enable(cpu);
	carry(cpu, NULL);
	raw_spin_unlock(&dlpi_lock);
	return NOTIFY_OK;
}

static struct notifier_block power = { .notifier_call = cpu_wakes };

/* Starts to use the redistributors of all CPUs that are online. */
int __init dlpi_start(struct rdists *all, unsigned int end)
{
	int error;

	rdists = all;
	intids = end;
	lpis = kvcalloc(intids, sizeof(*lpis), GFP_KERNEL);
	if (!lpis)
		return -ENOMEM;
	error = cpuhp_setup_state(STARTING, "irqchip/direct-lpi:starting", cpu_starts, cpu_dies);
	if (!error && cpumask_subset(cpu_online_mask, &served)) {
		cpu_pm_register_notifier(&power);
		return 0;
	}
	if (!error)
		cpuhp_remove_state(STARTING);
	kvfree(lpis);
	return error ?: -EIO;
}

/* Ends the calls for CPUs that come and go, before a module that failed to load is freed. */
void __init dlpi_stop(void)
{
	cpu_pm_unregister_notifier(&power);
	cpuhp_remove_state(STARTING);
	kvfree(lpis);
}

static void shut_down_here(void *unused)
{
	unsigned int cpu = smp_processor_id();

	raw_spin_lock(&dlpi_lock);
	if (dlpi_is_served(cpu)) {
		command(cpu, GICR_INVALLR, 0);
		if (its_disable_direct_lpis())
			cpumask_clear_cpu(cpu, &served);
	}
	raw_spin_unlock(&dlpi_lock);
}

/*
 * Ends the use of LPIs before another kernel owns the memory (kexec). No driver may enable one
 * again.
 */
void dlpi_shut_down(void)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&dlpi_lock, flags);
	is_shut_down = true;
	its_clear_direct_lpis();
	raw_spin_unlock_irqrestore(&dlpi_lock, flags);
	on_each_cpu(shut_down_here, NULL, 1);
}
