// SPDX-License-Identifier: GPL-2.0-only
/* PCI MSI and MSI-X of the functions whose host bridge names the GIC as its MSI controller. */
#include "direct-lpi.h"

#include <linux/init.h>
#include <linux/iommu.h>
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

#ifndef MODULE
arch_initcall(dlpi_register_shutdown);
#endif
