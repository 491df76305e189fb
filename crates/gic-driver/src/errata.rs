//! Errata: what implementations do otherwise than the architecture says, keyed by the `IIDR` of the frame that shows it.
//!
//! Facts from the vendors' public errata notices and from Linux's `Documentation/arch/arm64/silicon-errata.rst`. Each
//! [`Erratum`] says what has to be done, and by whom.
//!
//! ```
//! use gic_arch::Iidr;
//! use gic_driver::errata::{self, Erratum, Frame};
//!
//! let iidr = Iidr::from(0xa100034c);
//! let found: Vec<_> = errata::matching(Frame::Its, iidr, &[]).map(|entry| entry.erratum).collect();
//! assert_eq!(found, [Erratum::ItsNonCacheableTables, Erratum::ItsLocalNodeOnly]);
//! ```

use gic_arch::Iidr;

/// Whose `IIDR` shows the erratum.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Frame {
    /// `GICD_IIDR`.
    Distributor,
    /// `GICR_IIDR`.
    Redistributor,
    /// `GITS_IIDR`.
    Its,
}

/// What has to be done differently.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Erratum {
    /// Reserved registers, `GICD_TYPER2` among them, abort when read: only registers of the base architecture are
    /// touched. (This driver never reads others.)
    ReservedRegistersAbort,
    /// An SPI whose target's redistributor sleeps is not signalled after another CPU deactivates it by its CPU
    /// interface. The kernel, when the SPI was routed elsewhere since it was acknowledged, deactivates it by
    /// [`Interrupt::deactivate`](crate::Interrupt::deactivate) as well.
    SpiWakeLostOnDeactivation,
    /// Registers of SPIs of another chip are read at the alias of that chip's distributor. This driver does not:
    /// what it reads of such SPIs may be stale.
    SpisOwnedByChips,
    /// Tables are accessed without looking into caches, whatever the attributes read back. [`Gic`](crate::Gic) acts
    /// as if firmware had said so ([`TableAccess::NonCoherent`](crate::TableAccess::NonCoherent)).
    TablesNotCoherent,
    /// Tables lie below 4 GiB: the platform allocates them there.
    TablesBelow4GiB,
    /// The ITS needs its tables Non-cacheable at the inner level or with read- and write-allocation, and its device
    /// table holds DeviceIDs of 20 bits at most although `GITS_TYPER` says 24.
    ItsNonCacheableTables,
    /// The ITS reaches only redistributors of its own NUMA node.
    ItsLocalNodeOnly,
    /// An entry of an interrupt translation table takes 16 bytes, whatever `GITS_TYPER` says.
    ItsTranslationEntry16Bytes,
    /// The doorbell frame of virtual LPIs lies one place further in each redistributor (GICv4).
    VirtualLpiFrameOffset,
    /// Unmapping a virtual PE leaves caches of it: invalidate by `GICR_INVALLR` after `VMOVP` (GICv4.1).
    VirtualPeCachesSurviveUnmap,
}

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Whose `IIDR`.
    pub frame: Frame,
    /// The bits of `IIDR` that count.
    pub mask: u32,
    /// What they are.
    pub value: u32,
    /// Where the same IIDR stands for healthy implementations as well: the machines that have the erratum, by a compatible
    /// string of the devicetree's root, or ACPI's OEM table ID. Empty: all.
    pub machines: &'static [&'static str],
    /// What has to be done differently.
    pub erratum: Erratum,
    /// The vendor's number for it.
    pub number: &'static str,
    /// Which implementation.
    pub product: &'static str,
}

/// All errata that are known.
pub const TABLE: &[Entry] = &[
    Entry {
        frame: Frame::Distributor,
        mask: 0xe8f0_0fff,
        value: 0xa000_034c,
        machines: &[],
        erratum: Erratum::ReservedRegistersAbort,
        number: "38539",
        product: "Cavium ThunderX, OCTEON TX, OCTEON TX2",
    },
    Entry {
        frame: Frame::Distributor,
        mask: 0xff0e_0fff,
        value: 0x0400_043b,
        machines: &[],
        erratum: Erratum::SpiWakeLostOnDeactivation,
        number: "2941627",
        product: "Arm GIC-700, variants 0 and 1",
    },
    Entry {
        frame: Frame::Distributor,
        mask: 0xff0f_0fff,
        value: 0x0402_043b,
        machines: &[],
        erratum: Erratum::SpiWakeLostOnDeactivation,
        number: "2941627",
        product: "Arm GIC-700, variant 2",
    },
    Entry {
        frame: Frame::Distributor,
        mask: 0xffff_ffff,
        value: 0x0402_043b,
        machines: &["nvidia,t241", "T241"],
        erratum: Erratum::SpisOwnedByChips,
        number: "T241-FABRIC-4",
        product: "NVIDIA T241, several chips",
    },
    Entry {
        frame: Frame::Redistributor,
        mask: 0xffff_ffff,
        value: 0x0201_743b,
        machines: &["rockchip,rk3588", "rockchip,rk3588s"],
        erratum: Erratum::TablesNotCoherent,
        number: "3588001",
        product: "Rockchip RK3588 (GIC-600)",
    },
    Entry {
        frame: Frame::Redistributor,
        mask: 0xffff_ffff,
        value: 0x0201_743b,
        machines: &["rockchip,rk3566", "rockchip,rk3568"],
        erratum: Erratum::TablesBelow4GiB,
        number: "3568002",
        product: "Rockchip RK3566, RK3568 (GIC-600)",
    },
    Entry {
        frame: Frame::Its,
        mask: 0xffff_0fff,
        value: 0xa100_034c,
        machines: &[],
        erratum: Erratum::ItsNonCacheableTables,
        number: "22375, 24313",
        product: "Cavium ThunderX, pass 1",
    },
    Entry {
        frame: Frame::Its,
        mask: 0xffff_0fff,
        value: 0xa100_034c,
        machines: &[],
        erratum: Erratum::ItsLocalNodeOnly,
        number: "23144",
        product: "Cavium ThunderX, pass 1",
    },
    Entry {
        frame: Frame::Its,
        mask: 0xffff_ffff,
        value: 0x0000_1070,
        machines: &[],
        erratum: Erratum::ItsTranslationEntry16Bytes,
        number: "0065",
        product: "Qualcomm QDF2400",
    },
    Entry {
        frame: Frame::Its,
        mask: 0xffff_ffff,
        value: 0x0000_0004,
        machines: &[],
        erratum: Erratum::VirtualLpiFrameOffset,
        number: "161600802",
        product: "HiSilicon Hip07",
    },
    Entry {
        frame: Frame::Its,
        mask: 0xffff_ffff,
        value: 0x0005_1736,
        machines: &[],
        erratum: Erratum::VirtualPeCachesSurviveUnmap,
        number: "162100801",
        product: "HiSilicon Hip09",
    },
    Entry {
        frame: Frame::Its,
        mask: 0xffff_ffff,
        value: 0x0201_743b,
        machines: &["rockchip,rk3588", "rockchip,rk3588s"],
        erratum: Erratum::TablesNotCoherent,
        number: "3588001",
        product: "Rockchip RK3588 (GIC-600)",
    },
    Entry {
        frame: Frame::Its,
        mask: 0xffff_ffff,
        value: 0x0201_743b,
        machines: &["rockchip,rk3566", "rockchip,rk3568"],
        erratum: Erratum::TablesBelow4GiB,
        number: "3568002",
        product: "Rockchip RK3566, RK3568 (GIC-600)",
    },
];

/// The errata of a frame. `machine`: the compatible strings of the devicetree's root, or ACPI's OEM table ID.
pub fn matching<'a>(
    frame: Frame,
    iidr: Iidr,
    machine: &'a [&'a str],
) -> impl Iterator<Item = &'static Entry> + 'a {
    TABLE.iter().filter(move |entry| entry.applies(frame, iidr, machine))
}

impl Entry {
    fn applies(&self, frame: Frame, iidr: Iidr, machine: &[&str]) -> bool {
        self.frame == frame
            && u32::from(iidr) & self.mask == self.value
            && (self.machines.is_empty() || self.machines.iter().any(|name| machine.contains(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    fn found(frame: Frame, iidr: u32, machine: &[&str]) -> Vec<Erratum> {
        matching(frame, Iidr::from(iidr), machine).map(|entry| entry.erratum).collect()
    }

    #[test]
    fn every_row_can_match() {
        for entry in TABLE {
            assert_eq!(entry.value & !entry.mask, 0, "{} {}", entry.product, entry.number);
        }
    }

    #[test]
    fn a_masked_revision_does_not_keep_a_row_from_matching() {
        assert_eq!(found(Frame::Distributor, 0x0401_743b, &[]), [Erratum::SpiWakeLostOnDeactivation]);
        assert_eq!(found(Frame::Distributor, 0x0403_043b, &[]), []);
    }

    #[test]
    fn an_iidr_that_healthy_machines_share_needs_the_machine() {
        assert_eq!(found(Frame::Its, 0x0201_743b, &["rockchip,rk3399"]), []);
        let rk3588 = ["radxa,rock-5b", "rockchip,rk3588"];
        assert_eq!(found(Frame::Its, 0x0201_743b, &rk3588), [Erratum::TablesNotCoherent]);
    }

    #[test]
    fn a_frame_does_not_answer_for_another() {
        assert_eq!(found(Frame::Redistributor, 0xa100_034c, &[]), []);
    }

    #[test]
    fn models_have_no_errata() {
        for iidr in [0x4b00_143b, 0x4b00_243b, 0x4b00_343b, 0x0000_043b] {
            for frame in [Frame::Distributor, Frame::Redistributor, Frame::Its] {
                assert_eq!(found(frame, iidr, &[]), []);
            }
        }
    }
}
