// SPDX-License-Identifier: GPL-2.0-only
/* The domains of devices on newer kernels: the core makes one for each device. */
#include "direct-lpi.h"

#include <linux/irqchip/irq-msi-lib.h>
#include <linux/msi.h>

#define REQUIRED (MSI_FLAG_USE_DEF_DOM_OPS | MSI_FLAG_USE_DEF_CHIP_OPS | \
		  MSI_FLAG_PCI_MSI_MASK_PARENT)
#define SUPPORTED (MSI_GENERIC_FLAGS_MASK | MSI_FLAG_PCI_MSIX)

static bool init_device(struct device *dev, struct irq_domain *domain,
			struct irq_domain *parent, struct msi_domain_info *info)
{
	return !dlpi_check_device(dev) && msi_lib_init_dev_msi_info(dev, domain, parent, info);
}

static const struct msi_parent_ops parent_ops = {
	.supported_flags = SUPPORTED,
	.required_flags = REQUIRED,
	.chip_flags = MSI_CHIP_FLAG_SET_EOI,
	.bus_select_token = DOMAIN_BUS_NEXUS,
	.bus_select_mask = MATCH_PCI_MSI | MATCH_PLATFORM_MSI,
	.prefix = "DLPI-",
	.init_dev_msi_info = init_device,
};

/*
 * Creates the domain of all LPIs, from which the core makes one domain for each device. It has the
 * GIC's node, which msi-parent and msi-map refer to, so that devices that are created later find
 * it.
 */
struct irq_domain *dlpi_create_parent(struct irq_domain *gic, unsigned int end,
				      const struct irq_domain_ops *ops)
{
	struct irq_domain_info info = {
		.fwnode = gic->fwnode,
		.size = end,
		.ops = ops,
		.parent = gic,
	};

	return msi_create_parent_irq_domain(&info, &parent_ops);
}

struct irq_domain *dlpi_create_pci_domain(struct irq_domain *lpis)
{
	return lpis;
}
