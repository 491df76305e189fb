/* SPDX-License-Identifier: GPL-2.0-only */
/* Direct LPIs of a GICv3 without an ITS. */
#ifndef DIRECT_LPI_H
#define DIRECT_LPI_H

#include <linux/cpumask.h>
#include <linux/irqdomain.h>
#include <linux/of.h>
#include <linux/types.h>

#undef pr_fmt
#define pr_fmt(fmt) "direct-lpi: " fmt

#define DLPI_FIRST 8192U

/*
 * Interrupts that were allocated together: a single one, or the vectors of a PCI MSI, whose only
 * message names one redistributor for all of them.
 */
struct dlpi_block {
	u32 base;
	u32 count;
	/* The CPU that the message targets. Changed under dlpi_lock. */
	unsigned int cpu;
	/*
	 * CPUs that the message has targeted. A message may still be pending there: software
	 * cannot read this while LPIs are enabled.
	 */
	struct cpumask visited;
};

/*
 * Serializes changes of the configuration table and of targets with the invalidations that make
 * redistributors read them. Also keeps GICR_INVLPIR from being written while GICR_SYNCR.Busy is set
 * by another invalidation. Taken with interrupts disabled, inside of a descriptor's lock.
 */
extern raw_spinlock_t dlpi_lock;

/* redistributors.c */
int dlpi_find_redistributors(struct device_node *gic);
int dlpi_start_redistributors(unsigned int id_bits);
void dlpi_stop_redistributors(void);
void dlpi_shut_down(void);
void dlpi_copy_priority(void __iomem *distributor);
u64 dlpi_doorbell(unsigned int cpu);
void dlpi_configure(u32 intid, bool enabled);
void dlpi_invalidate(unsigned int cpu, u32 intid);
int dlpi_set_pending(unsigned int cpu, u32 intid, bool pending);
void dlpi_forget(u32 intid);
void dlpi_leave(u32 intid);

/* interrupts.c */
unsigned int dlpi_target(u32 intid);
unsigned int dlpi_interrupt(u32 intid);

/* pci.c */
int dlpi_check_device(struct device *dev);
int dlpi_register_shutdown(void);
void dlpi_unregister_shutdown(void);
void dlpi_serve_pci(struct irq_domain *domain, struct device_node *gic);

/* msi-parent.c or msi-domain.c */
struct irq_domain *dlpi_create_pci_domain(struct irq_domain *lpis);
struct irq_domain *dlpi_create_parent(struct irq_domain *gic, unsigned int intids,
				      const struct irq_domain_ops *ops);

#endif
