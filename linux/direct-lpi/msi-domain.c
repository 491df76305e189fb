// SPDX-License-Identifier: GPL-2.0-only
/* The domain of all PCI functions on older kernels. */
#include "direct-lpi.h"

#include <linux/irq.h>
#include <linux/msi.h>
#include <linux/pci.h>

static void mask(struct irq_data *d)
{
	pci_msi_mask_irq(d);
	irq_chip_mask_parent(d);
}

static void unmask(struct irq_data *d)
{
	irq_chip_unmask_parent(d);
	pci_msi_unmask_irq(d);
}

static int prepare(struct irq_domain *domain, struct device *dev, int count, msi_alloc_info_t *info)
{
	memset(info, 0, sizeof(*info));
	return dlpi_check_device(dev);
}

static struct irq_chip chip = {
	.name = "DLPI-MSI",
	.irq_mask = mask,
	.irq_unmask = unmask,
	.irq_eoi = irq_chip_eoi_parent,
};

static struct msi_domain_ops ops = {
	.msi_prepare = prepare,
};

static struct msi_domain_info info = {
	.flags = MSI_FLAG_USE_DEF_DOM_OPS | MSI_FLAG_USE_DEF_CHIP_OPS | MSI_FLAG_PCI_MSIX,
	.ops = &ops,
	.chip = &chip,
};

/* Creates the domain of all LPIs. The GIC's own domain is the one that its node refers to. */
struct irq_domain *dlpi_create_parent(struct irq_domain *gic, unsigned int end,
				      const struct irq_domain_ops *ops)
{
	struct fwnode_handle *name = irq_domain_alloc_named_fwnode("direct-lpi");
	struct irq_domain *lpis = NULL;

	if (name)
		lpis = irq_domain_create_hierarchy(gic, 0, end, name, ops, NULL);
	if (name && !lpis)
		irq_domain_free_fwnode(name);
	return lpis;
}

struct irq_domain *dlpi_create_pci_domain(struct irq_domain *lpis)
{
	return pci_msi_create_irq_domain(lpis->fwnode, &info, lpis);
}
