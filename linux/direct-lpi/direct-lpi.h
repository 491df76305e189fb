/* SPDX-License-Identifier: GPL-2.0-only */
/* Direct LPIs of a GICv3 without an ITS. */
#ifndef DIRECT_LPI_H
#define DIRECT_LPI_H

#include <linux/cpumask.h>
#include <linux/irqdomain.h>
#include <linux/irqchip/arm-gic-v3.h>
#include <linux/of.h>
#include <linux/types.h>

#undef pr_fmt
#define pr_fmt(fmt) "direct-lpi: " fmt

#define DLPI_FIRST 8192U

struct dlpi {
	/* The CPU that the message names. Changed under dlpi_lock and the descriptor's lock. */
	unsigned int cpu;
	/*
	 * CPUs that the message has named. A message may still be pending there: software cannot
	 * read this while LPIs are enabled. Changed under dlpi_lock.
	 */
	struct cpumask visited;
};

/* redistributors.c */
int dlpi_start(struct rdists *all, unsigned int end);
void dlpi_stop(void);
void dlpi_shut_down(void);
int dlpi_set_enabled(void __iomem *base, bool on);
u64 dlpi_doorbell(unsigned int cpu);
unsigned int dlpi_choose(const struct cpumask *mask, bool first);
bool dlpi_is_served(unsigned int cpu);
void dlpi_configure(struct dlpi *lpi, u32 intid, bool enabled);
int dlpi_move(struct dlpi *lpi, u32 intid, unsigned int cpu);
int dlpi_set_pending(struct dlpi *lpi, u32 intid, bool pending);
void dlpi_forget(struct dlpi *lpi, u32 intid);
void dlpi_add(struct dlpi *lpi, u32 intid);
void dlpi_remove(struct dlpi *lpi, u32 intid);

/* interrupts.c */
int dlpi_init(struct irq_domain *gic, struct rdists *all);
struct irq_domain *dlpi_pci_domain(void);

/* pci.c */
int dlpi_check_device(struct device *dev);
int dlpi_register_shutdown(void);

/* serve.c */
void dlpi_serve_pci(struct irq_domain *domain, const struct device_node *gic);

/* msi-parent.c or msi-domain.c */
struct irq_domain *dlpi_create_pci_domain(struct irq_domain *lpis);
struct irq_domain *dlpi_create_parent(struct irq_domain *gic, unsigned int end,
				      const struct irq_domain_ops *ops);

/*
 * The LPI tables, and the redistributor of the calling CPU: compat.c, or the ITS's driver if this
 * driver is built in. No CPU may call these for another one.
 */
/* Returns the number of INTID bits, or an error. */
int its_allocate_direct_lpis(void);
void its_write_direct_lpi(u32 intid, bool enabled);
void its_clear_direct_lpis(void);
/* Returns 1 if LPIs were enabled before, with the same tables, and cannot be disabled. */
int its_enable_direct_lpis(void);
/* Returns the table of what is pending, or NULL if LPIs cannot be disabled. */
unsigned long *its_disable_direct_lpis(void);

#endif
