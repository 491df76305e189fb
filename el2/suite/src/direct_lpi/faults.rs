//! Faults that are planted into our Direct LPI driver, and how they are named.

use super::named::{NO_INTERRUPT, NamedBy, TIMEOUT};
use super::own::Change;
use super::runs::{
    AWAKE, EXTERNAL, FEW_IDS, IMPATIENT, KEXECS, MOVING, NEWEST, PERMANENT, PLAIN, POWERED,
    POWERED_NEWEST, TALKING_KEXECS, TRANSLATED,
};
use crate::linux::{FEW_READS, LinuxCase, SLEEPS};

/// A fault of our driver.
#[derive(Clone, Copy)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    file: &'static str,
    old: &'static str,
    new: &'static [&'static str],
    /// A machine on which the fault shows.
    pub(super) case: LinuxCase,
    pub(super) named: NamedBy,
}

impl Fault {
    /// Returns the change of the driver.
    pub(super) const fn change(&self) -> Change {
        Change { file: self.file, old: self.old, new: self.new }
    }
}

/// A function that lets a device send messages between the writes of address and data.
const WRITE_TORN: &str = "\
#include <linux/delay.h>
#include <linux/pci.h>

static void write_torn(struct irq_data *d, struct msi_msg *msg)
{
\tstruct msi_msg torn = *msg;

\ttorn.data = 0;
\tpci_write_msi_msg(d->irq, &torn);
\tmdelay(20);
\tpci_write_msi_msg(d->irq, msg);
}

";
/// The beginning of the function that prepares the domain of a device, for kernels whose core makes
/// one for each device.
const INIT_DEVICE: &str = "\
static bool init_device(struct device *dev, struct irq_domain *domain,
\t\t\tstruct irq_domain *parent, struct msi_domain_info *info)
{
";

// Without `awake`, the second redistributor first reads the byte after it was enabled.
const NO_INVLPIR: Fault = Fault {
    name: "no INVLPIR at the new redistributor",
    file: "redistributors.c",
    old: "command(cpu, GICR_INVLPIR, intid);\n\t\tlpi->cpu = cpu;",
    new: &["lpi->cpu = cpu;"],
    case: LinuxCase { words: AWAKE, ..PLAIN },
    named: NamedBy::Judge("a PCI MSI is lost"),
};
const NO_SYNCR: Fault = Fault {
    name: "no wait for SYNCR",
    file: "redistributors.c",
    old: "if (readl_relaxed_poll_timeout_atomic(base + GICR_SYNCR, busy, !(busy & 1), 1, \
      TIMEOUT_US))",
    new: &["busy = 0;\n\tif (busy)"],
    case: PLAIN,
    named: NamedBy::Lines(&[&["GICR_INVLPIR", "before GICR_SYNCR.Busy was read as 0"]]),
};
const NO_RESUME: Fault = Fault {
    name: "LPIs that stay disabled after a suspend",
    file: "redistributors.c",
    old: "\tif (action != CPU_PM_EXIT ||",
    new: &["\tif (action ||"],
    case: LinuxCase { words: SLEEPS, ..POWERED },
    named: NamedBy::Lines(&[&["GICR_SETLPIR", "EnableLPIs is 0 at its target"]]),
};
const TORN_MESSAGE_OF_DEVICE: Fault = Fault {
    name: "a newer kernel's address that is written before its data",
    file: "msi-parent.c",
    old: INIT_DEVICE,
    new: &[
        WRITE_TORN,
        INIT_DEVICE,
        "\tif (dev_is_pci(dev))\n\t\tinfo->chip->irq_write_msi_msg = write_torn;\n",
    ],
    case: LinuxCase { reads: 10 * FEW_READS, ..NEWEST },
    named: NO_INTERRUPT,
};
const STALE_MESSAGE: Fault = Fault {
    name: "a message that stays at the old redistributor",
    file: "interrupts.c",
    old: "\treturn IRQ_SET_MASK_OK;\n",
    new: &["\treturn IRQ_SET_MASK_OK_DONE;\n"],
    case: PLAIN,
    named: NamedBy::Judge("CPU 1 took 0 of 40 MSIs"),
};
const NO_SHUTDOWN: Fault = Fault {
    name: "LPIs that stay enabled at a kexec",
    file: "pci.c",
    old: "\tdlpi_shut_down();\n",
    new: &[""],
    case: LinuxCase { words: KEXECS, ..PLAIN },
    named: NamedBy::Judge("LPIs were left enabled"),
};

/// Faults that are planted into our driver.
pub(super) const PLANTED: &[Fault] = &[
    NO_INVLPIR,
    Fault {
        name: "an address that is written before its data",
        file: "msi-domain.c",
        old: "static struct irq_chip chip = {\n",
        new: &[WRITE_TORN, "static struct irq_chip chip = {\n\t.irq_write_msi_msg = write_torn,\n"],
        case: LinuxCase { reads: 10 * FEW_READS, ..PLAIN },
        named: NO_INTERRUPT,
    },
    NO_SYNCR,
    Fault {
        name: "LPIs that stay pending over a kexec",
        file: "redistributors.c",
        old: "\tcpumask_copy(&lpi->visited, &inherited);\n",
        new: &[""],
        case: LinuxCase { words: KEXECS, ..PERMANENT },
        named: NamedBy::Judge("an MSI was taken that nobody sent"),
    },
    Fault {
        name: "LPIs that are disabled at a CPU without power",
        file: "compat.c",
        old: "\t\tif (!frame->pending)\n",
        new: &["\t\twritel_relaxed(0, frame->base + GICR_CTLR);\n\t\tif (!frame->pending)\n"],
        case: POWERED,
        named: NamedBy::Lines(&[&["no device handles 4 bytes at 0x80c0000"]]),
    },
    NO_RESUME,
    Fault {
        name: "too few bits in GICR_PROPBASER",
        file: "compat.c",
        old: "(id_bits - 1);",
        new: &["(id_bits - 2);"],
        case: LinuxCase { parameters: FEW_IDS, ..PLAIN },
        named: NamedBy::Lines(&[&["GICR_PROPBASER", "LPI table too small"]]),
    },
];

/// Faults that only the long run plants.
pub(super) const PLANTED_LONG: &[Fault] = &[
    TORN_MESSAGE_OF_DEVICE,
    STALE_MESSAGE,
    NO_SHUTDOWN,
    Fault {
        name: "tables outside of reserved memory",
        file: "compat.c",
        old: "of_parse_phandle(node, \"memory-region\", 0)",
        new: &["NULL"],
        case: LinuxCase { words: KEXECS, ..PERMANENT },
        named: NamedBy::Lines(&[&["LPIs are already enabled", "unknown memory"]]),
    },
    Fault {
        name: "one pending table for all redistributors",
        file: "compat.c",
        old: "tables = frame->pending_address",
        new: &["tables = per_cpu(frames, 0)->pending_address"],
        case: LinuxCase { words: AWAKE, ..PLAIN },
        named: NamedBy::Lines(&[&["GICR_PENDBASER", "overlaps that of another redistributor"]]),
    },
];

/// Faults that are planted into the driver that is built in. The first ones are in files that the
/// module has, too.
pub(super) const PLANTED_BUILT_IN: &[Fault] = &[
    Fault { case: LinuxCase { words: AWAKE, ..NEWEST }, ..NO_INVLPIR },
    TORN_MESSAGE_OF_DEVICE,
    Fault { case: NEWEST, ..NO_SYNCR },
    Fault { case: NEWEST, named: NamedBy::Judge("CPU 0 took 60 of 120 MSIs"), ..STALE_MESSAGE },
    Fault {
        case: LinuxCase { words: TALKING_KEXECS, ..NEWEST },
        named: NamedBy::Lines(&[&["Booted with LPIs enabled"]]),
        ..NO_SHUTDOWN
    },
    Fault { case: LinuxCase { words: SLEEPS, ..POWERED_NEWEST }, ..NO_RESUME },
    // The SMMU reports the message, and the disk's interrupt does not arrive.
    Fault {
        name: "a physical doorbell behind an SMMU",
        file: "interrupts.c",
        old: "= lpi->doorbells[lpi->cpu];",
        new: &["= dlpi_doorbell(lpi->cpu);"],
        case: LinuxCase { words: IMPATIENT, ..TRANSLATED },
        named: NamedBy::Lines(&[
            &["event: F_TRANSLATION client: 0000:00:01.0", "iova: 0x8090040 "],
            TIMEOUT,
        ]),
    },
    Fault {
        name: "an external function that reaches the redistributors",
        file: "pci.c",
        old: "\t\treturn -EPERM;\n",
        new: &[""],
        case: LinuxCase { words: EXTERNAL, ..TRANSLATED },
        named: NamedBy::Judge("CPU 0 took 120 of 100 MSIs"),
    },
    // The first redistributor does not know that the LPI is enabled.
    Fault {
        name: "the first CPU's doorbell for all CPUs",
        file: "iommu.c",
        old: "iommu_dma_prepare_msi(desc, dlpi_doorbell(cpu));",
        new: &["iommu_dma_prepare_msi(desc, dlpi_doorbell(0));"],
        case: LinuxCase { words: IMPATIENT, ..MOVING },
        named: NamedBy::Lines(&[TIMEOUT]),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::direct_lpi::own;

    #[test]
    fn each_planted_fault_changes_exactly_one_driver_file() {
        for fault in PLANTED {
            let before = own::sources().unwrap();
            let after = fault.change().made(before.clone()).unwrap();
            let changed = before.iter().zip(&after).filter(|(before, after)| before != after);
            assert_eq!(changed.count(), 1, "{}", fault.name);
        }
    }
}
