// SPDX-License-Identifier: GPL-2.0-only
/* PCI functions that exist when a module is loaded. Built in, the driver starts before them. */
#include "direct-lpi.h"

#include <linux/msi.h>
#include <linux/pci.h>

/*
 * Returns true if the messages of a host bridge are meant for the GIC: by msi-parent, or by each
 * entry of msi-map, whose second cell is the controller.
 */
static bool is_routed(struct pci_bus *bus, const struct device_node *gic)
{
	struct device_node *bridge = bus->dev.of_node;
	struct device_node *parent = of_parse_phandle(bridge, "msi-parent", 0);
	u32 at, controller;

	of_node_put(parent);
	if (parent)
		return parent == gic;
	for (at = 1; !of_property_read_u32_index(bridge, "msi-map", at, &controller); at += 4)
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

/* Gives the domain to the functions that exist, and to root buses, where new functions find it. */
void __init dlpi_serve_pci(struct irq_domain *domain, const struct device_node *gic)
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
