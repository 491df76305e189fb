/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Interfaces inside the kernel that the RFC's driver expects, for a module. */
#include <linux/irqchip/arm-gic-v3.h>
#include <linux/irqdomain.h>

struct rdists;

u32 its_read_lpi_count(struct irq_data *d, int cpu);
void its_inc_lpi_count(struct irq_data *d, int cpu);
void its_dec_lpi_count(struct irq_data *d, int cpu);
unsigned int cpumask_pick_least_loaded(struct irq_data *d, const struct cpumask *mask);
int its_irq_gic_domain_alloc(struct irq_domain *domain, unsigned int virq, irq_hw_number_t hwirq);
unsigned long *its_lpi_alloc(int count, u32 *base, int *got);
void its_lpi_free(unsigned long *bitmap, u32 base, u32 count);
int direct_lpi_init(struct irq_domain *parent, struct rdists *rdists);

/* What the mends use instead of the RFC's own. */
#define shim_intid(d) ((u32)(d)->hwirq)
void shim_move(struct irq_data *d, const struct cpumask *to);
int shim_set_state(struct irq_data *d, enum irqchip_irq_state which, bool state);

/* Not exported to modules. There is no IORT here, and no IOMMU in front of the devices. */
int shim_register(struct fwnode_handle *fwnode);
#define iort_register_domain_token(id, base, fwnode) shim_register(fwnode)
#define iort_deregister_domain_token(id) do { } while (0)
#define iommu_dma_compose_msi_msg(desc, msg) do { } while (0)
#define msi_get_domain_info(domain) ((struct msi_domain_info *)(domain)->host_data)
#undef gic_flush_dcache_to_poc
#define gic_flush_dcache_to_poc(address, bytes) WARN_ON(1) /* the tables are coherent */
#undef __init
#define __init
