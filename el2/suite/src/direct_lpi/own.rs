//! The files of our Direct LPI driver, with and without a planted fault.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use doorbell_harness::{cache, workspace};

/// Folder of the driver, relative to the project's root.
const FOLDER: &str = "linux/direct-lpi";

/// Files, with their names.
pub(super) type Sources = Vec<(String, String)>;

/// A fault, planted by replacing a text that occurs once in the driver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    file: &'static str,
    old: &'static str,
    new: &'static str,
}

/// The opening of `struct irq_chip chip`, preceded by a function that lets a device send messages
/// between the writes of address and data.
const TORN: &str = "\
#include <linux/delay.h>

static void write_torn(struct irq_data *d, struct msi_msg *msg)
{
\tstruct msi_msg torn = *msg;

\ttorn.data = 0;
\tpci_write_msi_msg(d->irq, &torn);
\tmdelay(20);
\tpci_write_msi_msg(d->irq, msg);
}

static struct irq_chip chip = {
\t.irq_write_msi_msg = write_torn,
";

/// The same for kernels whose core makes a domain for each device.
const TORN_BY_DEVICE: &str = "\
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

static bool init_device(struct device *dev, struct irq_domain *domain,
\t\t\tstruct irq_domain *parent, struct msi_domain_info *info)
{
\tif (dev_is_pci(dev))
\t\tinfo->chip->irq_write_msi_msg = write_torn;
";

/// Returns the driver's files.
pub(super) fn sources() -> Result<Sources> {
    sources_in(&workspace::this()?.root.join(FOLDER))
}

/// Returns the files of a driver, with a list of what it sends again without knowing whether it was
/// pending.
pub(super) fn noting(sources: Sources) -> Result<Sources> {
    let mut sources = Fault::NOTED.planted(sources)?;
    let makefile = sources.iter_mut().find(|(name, _)| name == "Makefile");
    makefile.context("the driver has no makefile")?.1.push_str("direct-lpi-y += resent.o\n");
    sources.push(("resent.c".into(), include_str!("resent.c").into()));
    Ok(sources)
}

/// Returns the files in a folder.
pub(super) fn sources_in(folder: &Path) -> Result<Sources> {
    let files = cache::files_below(folder)?;
    let source = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, fs::read_to_string(file)?))
    };
    files.iter().map(source).collect()
}

impl Fault {
    /// No fault, but a call of the list's function.
    const NOTED: Self = Self {
        name: "a message that is sent again is noted",
        file: "redistributors.c",
        old: "\t\tif (dlpi_is_served(lpi->cpu) && (!pending || test_bit(intid, pending)))\n",
        new: "\t\tif (dlpi_is_served(lpi->cpu) && !pending) {\n\t\t\tvoid dlpi_note(const struct \
              dlpi *lpi);\n\n\t\t\tdlpi_note(lpi);\n\t\t}\n\t\tif (dlpi_is_served(lpi->cpu) && (!pending || \
              test_bit(intid, pending)))\n",
    };
    pub(super) const NO_INVLPIR: Self = Self {
        name: "no INVLPIR at the new redistributor",
        file: "redistributors.c",
        old: "command(cpu, GICR_INVLPIR, intid);\n\t\tlpi->cpu = cpu;",
        new: "lpi->cpu = cpu;",
    };
    pub(super) const ABSENT_CPU: Self = Self {
        name: "LPIs that are disabled at a CPU without power",
        file: "compat.c",
        old: "\t\tif (!frame->pending)\n",
        new: "\t\twritel_relaxed(0, frame->base + GICR_CTLR);\n\t\tif (!frame->pending)\n",
    };
    pub(super) const NO_RESUME: Self = Self {
        name: "LPIs that stay disabled after a suspend",
        file: "redistributors.c",
        old: "\tif (action != CPU_PM_EXIT ||",
        new: "\tif (action ||",
    };
    pub(super) const TORN_MESSAGE: Self = Self {
        name: "an address that is written before its data",
        file: "msi-domain.c",
        old: "static struct irq_chip chip = {\n",
        new: TORN,
    };
    pub(super) const TORN_MESSAGE_OF_DEVICE: Self = Self {
        name: "a newer kernel's address that is written before its data",
        file: "msi-parent.c",
        old: "\
static bool init_device(struct device *dev, struct irq_domain *domain,
\t\t\tstruct irq_domain *parent, struct msi_domain_info *info)
{
",
        new: TORN_BY_DEVICE,
    };
    pub(super) const NO_SYNCR: Self = Self {
        name: "no wait for SYNCR",
        file: "redistributors.c",
        old: "if (readl_relaxed_poll_timeout_atomic(base + GICR_SYNCR, busy, !(busy & 1), 1, \
              TIMEOUT_US))",
        new: "busy = 0;\n\tif (busy)",
    };
    pub(super) const STALE_MESSAGE: Self = Self {
        name: "a message that stays at the old redistributor",
        file: "interrupts.c",
        old: "\treturn IRQ_SET_MASK_OK;\n",
        new: "\treturn IRQ_SET_MASK_OK_DONE;\n",
    };
    pub(super) const NO_SHUTDOWN: Self = Self {
        name: "LPIs that stay enabled at a kexec",
        file: "pci.c",
        old: "\tdlpi_shut_down();\n",
        new: "",
    };
    pub(super) const LEFT_PENDING: Self = Self {
        name: "LPIs that stay pending over a kexec",
        file: "redistributors.c",
        old: "\tcpumask_copy(&lpi->visited, &inherited);\n",
        new: "",
    };
    pub(super) const OTHER_TABLES: Self = Self {
        name: "tables outside of reserved memory",
        file: "compat.c",
        old: "of_parse_phandle(node, \"memory-region\", 0)",
        new: "NULL",
    };
    /// The text is in the kernel's driver, not in the module.
    pub(super) const PHYSICAL_DOORBELL: Self = Self {
        name: "a physical doorbell behind an SMMU",
        file: "interrupts.c",
        old: "= lpi->doorbells[lpi->cpu];",
        new: "= dlpi_doorbell(lpi->cpu);",
    };
    /// Likewise.
    pub(super) const NO_REFUSAL: Self = Self {
        name: "an external function that reaches the redistributors",
        file: "pci.c",
        old: "\t\treturn -EPERM;\n",
        new: "",
    };
    /// Likewise.
    pub(super) const ONE_DOORBELL: Self = Self {
        name: "the first CPU's doorbell for all CPUs",
        file: "iommu.c",
        old: "iommu_dma_prepare_msi(desc, dlpi_doorbell(cpu));",
        new: "iommu_dma_prepare_msi(desc, dlpi_doorbell(0));",
    };
    /// A fault of style, which both of the kernel's checkers find.
    pub(super) const GLOBAL: Self = Self {
        name: "a global variable",
        file: "pci.c",
        old: "static int probe(",
        new: "int dlpi_planted = 0;\n\nstatic int probe(",
    };
    pub(super) const FEW_ID_BITS: Self = Self {
        name: "too few bits in GICR_PROPBASER",
        file: "compat.c",
        old: "(id_bits - 1);",
        new: "(id_bits - 2);",
    };
    pub(super) const ONE_PENDING_TABLE: Self = Self {
        name: "one pending table for all redistributors",
        file: "compat.c",
        old: "tables = frame->pending_address",
        new: "tables = per_cpu(frames, 0)->pending_address",
    };

    /// Plants the fault.
    ///
    /// # Errors
    /// The text that the fault replaces does not occur exactly once.
    pub(super) fn planted(self, mut sources: Sources) -> Result<Sources> {
        let source = sources.iter_mut().find(|(name, _)| name == self.file);
        let (name, text) = source.with_context(|| format!("the driver has no {}", self.file))?;
        let times = text.matches(self.old).count();
        ensure!(times == 1, "{name} has this text {times} times: {:?}", self.old);
        *text = text.replace(self.old, self.new);
        Ok(sources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_planted_only_where_its_text_occurs_once() {
        let fault = Fault::NO_INVLPIR;
        let source = |text: String| vec![(fault.file.to_owned(), text)];
        let judged = |times| fault.planted(source(fault.old.repeat(times)));
        assert!(judged(0).is_err() && judged(2).is_err());
        assert_eq!(judged(1).unwrap(), source(fault.new.to_owned()));
    }
}
