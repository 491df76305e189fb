// SPDX-License-Identifier: GPL-2.0-only
/* PCI MSI and MSI-X of the functions whose host bridge names the GIC as its MSI controller. */
#include "direct-lpi.h"

#include <linux/iommu.h>
#include <linux/msi.h>
#include <linux/pci.h>
#include <linux/platform_device.h>

/* Stands for the redistributors when the core orders shutdowns. */
static struct platform_device *redistributors;

/*
 * The doorbell's address is physical. Behind an IOMMU that translates, a function needs a mapping
 * of it, which a module cannot make. The core itself refuses functions whose messages have 32-bit
 * addresses if doorbells lie above 4 GiB.
 */
int dlpi_check_device(struct device *dev)
{
	struct iommu_domain *iommu = iommu_get_domain_for_dev(dev);

	if (iommu && iommu->type != IOMMU_DOMAIN_IDENTITY) {
		dev_err(dev, "direct-lpi: doorbells behind a translating IOMMU are not supported\n");
		return -EOPNOTSUPP;
	}
	/* The core shuts a device down before the redistributors that its messages need. */
	if (!device_link_add(dev, &redistributors->dev, DL_FLAG_STATELESS))
		dev_warn(dev, "direct-lpi: the device may be shut down too late\n");
	return 0;
}

/*
 * Returns true if the messages of a host bridge are meant for the GIC: by msi-parent, or by each
 * entry of msi-map, whose second cell is the controller.
 */
static bool is_routed(struct pci_bus *bus, struct device_node *gic)
{
	struct device_node *node = bus->dev.of_node;
	struct device_node *parent = of_parse_phandle(node, "msi-parent", 0);
	u32 at, controller;

	of_node_put(parent);
	if (parent)
		return parent == gic;
	for (at = 1; !of_property_read_u32_index(node, "msi-map", at, &controller); at += 4)
		if (controller != gic->phandle)
			return false;
	return at > 1;
}

static int serve(struct pci_dev *function, void *domain)
{
	function->bus->bus_flags &= ~PCI_BUS_FLAGS_NO_MSI;
	dev_set_msi_domain(&function->dev, domain);
	return 0;
}

static void shut_down(struct platform_device *device)
{
	dlpi_shut_down();
}

static int probe(struct platform_device *device)
{
	return 0;
}

static struct platform_driver driver = {
	.shutdown = shut_down,
	.driver = { .name = "direct-lpi" },
};

/*
 * Has the core call the shutdown. The redistributors are a platform device, because older kernels
 * do not call syscore operations at a kexec.
 */
int __init dlpi_register_shutdown(void)
{
	redistributors = platform_create_bundle(&driver, probe, NULL, 0, NULL, 0);
	return PTR_ERR_OR_ZERO(redistributors);
}

void __init dlpi_unregister_shutdown(void)
{
	platform_device_unregister(redistributors);
	platform_driver_unregister(&driver);
}

/* Gives the domain to the functions that exist, and to root buses, where new functions find it. */
void __init dlpi_serve_pci(struct irq_domain *domain, struct device_node *gic)
{
	struct pci_bus *bus = NULL;

	while ((bus = pci_find_next_bus(bus))) {
		if (!is_routed(bus, gic))
			continue;
		bus->bus_flags &= ~PCI_BUS_FLAGS_NO_MSI;
		dev_set_msi_domain(&bus->dev, domain);
		pci_walk_bus(bus, serve, domain);
	}
}
