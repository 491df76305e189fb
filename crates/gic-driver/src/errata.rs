//! Errata: known deviations from the architecture, identified by the affected frame's `IIDR`.
//!
//! The facts come from vendors' public errata notices and from Linux
//! (`Documentation/arch/arm64/silicon-errata.rst`, `drivers/irqchip/irq-gic-v3.c`,
//! `drivers/irqchip/irq-gic-v3-its.c`). Each [`Erratum`] states the workaround and whether the
//! driver or the kernel must apply it. [`Gic::errata`](crate::Gic::errata) and
//! [`Its::errata`](crate::Its::errata) return a machine's errata.
//!
//! | Number | Product | Workaround |
//! |---|---|---|
//! | 22375, 24313 | Cavium ThunderX ITS | the driver chooses the table size and memory type (like FreeBSD's `gicv3_its.c`) |
//! | 23144 | Cavium ThunderX ITS | the kernel, which knows the NUMA nodes, sets [`ItsConfig::with_targets`]; the driver refuses other CPUs |
//! | 38539 | Cavium ThunderX, OCTEON TX | the driver does not read the affected registers |
//! | 23154, 38545 | Cavium ThunderX CPUs | the kernel, which knows `MIDR_EL1`, wraps its registers |
//! | 2941627 | Arm GIC-700 | the driver applies it in [`Gic::end`] and [`Gic::deactivate`] |
//! | T241-FABRIC-4 | NVIDIA T241 | the driver reads through aliases; it does not use virtual LPIs, which do not work there |
//! | 161010803 | HiSilicon Hip06, Hip07 | the driver ignores extended SPIs |
//! | 161600802, 162100801 | HiSilicon Hip07, Hip09 | only reported, for hypervisors that use virtual LPIs |
//! | 0065 | Qualcomm QDF2400 ITS | the driver allocates larger translation entries |
//! | MSM8996 firmware | Qualcomm MSM8996 | the driver leaves `GICR_WAKER` alone |
//! | pre-ITS | Socionext SynQuacer | the driver uses the window that firmware states ([`ItsConfig::with_pre_its`]) |
//! | 3588001 | Rockchip RK3588 | the driver treats tables as non-coherent |
//! | 3568002 | Rockchip RK3566, RK3568 | the driver allocates tables below 4 GiB |
//! | GEN4GICITS1 | Renesas R-Car Gen4 | the driver allocates tables below 4 GiB (like Xen's `gic-v3-its.c`) |
//! | RK3399 integration | Rockchip RK3399 | the driver disables the second security state |
//! | 8601001 | ASR8601 | the driver translates affinities |
//! | Chromebook firmware | MediaTek MT8183, MT8192, MT8195 | the kernel must not use pseudo-NMI |
//! | `dma-noncoherent` | any | the kernel passes on what firmware states: [`TableAccess::NonCoherent`], [`ItsConfig::with_coherence`] |
//!
//! [`Gic::end`]: crate::Gic::end
//! [`Gic::deactivate`]: crate::Gic::deactivate
//! [`ItsConfig::with_targets`]: crate::ItsConfig::with_targets
//! [`ItsConfig::with_pre_its`]: crate::ItsConfig::with_pre_its
//! [`ItsConfig::with_coherence`]: crate::ItsConfig::with_coherence
//! [`TableAccess::NonCoherent`]: crate::TableAccess::NonCoherent
//!
//! ```
//! use gic_arch::Iidr;
//! use gic_driver::errata::{self, Erratum, IdRegister};
//!
//! let iidr = Iidr::from(0xa100034c);
//! let entries = errata::matching(IdRegister::Its, iidr, &[]);
//! let found: Vec<_> = entries.map(|entry| entry.erratum).collect();
//! assert_eq!(found, [Erratum::ItsTableAttributes, Erratum::ItsLocalNodeOnly]);
//! ```

use gic_arch::Iidr;

/// The register that identifies an implementation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IdRegister {
    /// `GICD_IIDR`.
    Distributor,
    /// `GICR_IIDR`.
    Redistributor,
    /// `GITS_IIDR`.
    Its,
    /// `MIDR_EL1` of a CPU, for errata that are identified by the CPU instead of an `IIDR`.
    Cpu,
}

/// A deviation from the architecture and its workaround.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Erratum {
    /// Reads of reserved registers, including `GICD_TYPER2`, abort. Software must only access
    /// registers of the base architecture. (This driver never reads other registers.)
    ReservedRegistersAbort,
    /// If an SPI's target redistributor is asleep, the SPI is not signaled after another CPU
    /// deactivates it through its CPU interface. For an SPI routed to another CPU,
    /// [`Gic::end`](crate::Gic::end) and [`Gic::deactivate`](crate::Gic::deactivate) deactivate it
    /// at the distributor.
    SpiWakeLostOnDeactivation,
    /// With three or more chips, the registers of an SPI must be read through the distributor alias
    /// of the chip that owns it. [`Gic`](crate::Gic) does this.
    SpisOwnedByChips,
    /// `GICD_TYPER` reports extended SPIs that do not exist. [`Distributor`](crate::Distributor)
    /// ignores them.
    ExtendedSpisNotThere,
    /// Non-secure software accesses the Secure registers, so priorities have different scales at
    /// the distributor and at the CPU interface. [`Gic`](crate::Gic) sets `GICD_CTLR.DS`, which
    /// leaves a single security state.
    SecureRegistersExposed,
    /// Affinities in the GIC are one level lower than in `MPIDR_EL1`.
    /// [`Gic`](crate::Gic) translates [`GicConfig::cpus`](crate::GicConfig::cpus).
    AffinityOneLevelDown,
    /// `GICR_WAKER` must not be used, because firmware has woken the redistributors.
    /// [`Gic`](crate::Gic) does not access it.
    WakerUnusable,
    /// Firmware does not restore the priorities of a CPU's private interrupts after a power-down.
    /// The kernel can't rely on different priorities, so it must not implement pseudo-NMI with
    /// [`mask_below`](crate::CpuInterface::mask_below).
    PrivatePrioritiesLost,
    /// A read of `ICC_IAR1_EL1` may overtake an earlier access and may return an interrupt that
    /// does not become active. The kernel must wrap the CPU's registers in
    /// [`SynchronizedAcknowledge`](crate::cpu_interface::SynchronizedAcknowledge).
    AcknowledgeNotSynchronized,
    /// Accesses to tables are not coherent, regardless of the attributes that read back.
    /// [`Gic`](crate::Gic) acts as if firmware had stated this
    /// ([`TableAccess::NonCoherent`](crate::TableAccess::NonCoherent)).
    TablesNotCoherent,
    /// Tables must lie below 4 GiB. The drivers request suitable memory from the platform
    /// ([`TableLayout::address_bits`](crate::TableLayout::address_bits)).
    TablesBelow4GiB,
    /// The device table supports only 20 bits of DeviceIDs although `GITS_TYPER` reports more, and
    /// tables must have memory type 0 (Device-nGnRnE) regardless of the types that `GITS_BASER<n>`
    /// accepts. [`Its`](crate::Its) sets up its tables accordingly.
    ItsTableAttributes,
    /// The ITS reaches only the redistributors of its own NUMA node. Collections, MOVI and SYNC
    /// must not target other redistributors. The kernel must state [the
    /// CPUs](crate::ItsConfig::with_targets) of that node; [`Its`](crate::Its) refuses other CPUs.
    ItsLocalNodeOnly,
    /// Devices must not write to `GITS_TRANSLATER`, because the ITS would see DeviceID 0. Instead
    /// each device writes to its own word in a [window](crate::ItsConfig::with_pre_its) in front of
    /// the ITS. [`Its`](crate::Its) composes messages accordingly, and reports that devices are not
    /// isolated, because each can write to another's word.
    ItsBehindPreIts,
    /// An entry of an interrupt translation table occupies 16 bytes, regardless of `GITS_TYPER`.
    /// [`Its`](crate::Its) allocates tables of that size.
    ItsTranslationEntry16Bytes,
    /// VMAPP and VMOVP must refer to a redistributor by its VLPI frame, 128 KiB above RD_base
    /// (GICv4; Linux, `its_enable_quirk_hip07_161600802`).
    VirtualLpiFrameOffset,
    /// Unmapping a virtual PE does not invalidate cached data of this virtual PE. Software must
    /// invalidate through `GICR_INVALLR` after `VMOVP` (GICv4.1).
    VirtualPeCachesSurviveUnmap,
}

/// A row in the errata table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ErratumEntry {
    /// Register that identifies affected implementations.
    pub frame: IdRegister,
    /// Bits to compare.
    pub mask: u32,
    /// Expected value of the identification register under `mask`.
    pub value: u32,
    /// Affected machines, if unaffected implementations share the IIDR; empty for all machines. A
    /// machine is identified by a compatible string or quirk property of the devicetree's root or
    /// GIC node, by ACPI's OEM table ID, or by the SoC ID that firmware reports (SMCCC `SOC_ID`,
    /// written as `jep106:` and two hexadecimal numbers).
    pub machines: &'static [&'static str],
    /// The deviation and its workaround.
    pub erratum: Erratum,
    /// The vendor's erratum number.
    pub number: &'static str,
    /// The name of the affected implementation.
    pub product: &'static str,
}

/// All known errata.
pub const TABLE: &[ErratumEntry] = &[
    row(IdRegister::Distributor, 0xe8f0_0fff, 0xa000_034c, Erratum::ReservedRegistersAbort)
        .of("Cavium ThunderX, OCTEON TX, OCTEON TX2", "38539"),
    row(IdRegister::Distributor, 0xff0e_0fff, 0x0400_043b, Erratum::SpiWakeLostOnDeactivation)
        .of("Arm GIC-700, variants 0 and 1", "2941627"),
    row(IdRegister::Distributor, 0xff0f_0fff, 0x0402_043b, Erratum::SpiWakeLostOnDeactivation)
        .of("Arm GIC-700, variant 2", "2941627"),
    row(IdRegister::Distributor, 0xffff_ffff, 0x0402_043b, Erratum::SpisOwnedByChips)
        .of("NVIDIA T241, several chips", "T241-FABRIC-4")
        .on(&["jep106:036b:0241"]),
    row(IdRegister::Distributor, 0xffff_ffff, 0x0204_043b, Erratum::ExtendedSpisNotThere)
        .of("HiSilicon Hip06", "161010803"),
    row(IdRegister::Distributor, 0xffff_ffff, 0x0000_0000, Erratum::ExtendedSpisNotThere)
        .of("HiSilicon Hip07", "161010803"),
    row(IdRegister::Distributor, 0xff00_0fff, 0x0000_043b, Erratum::SecureRegistersExposed)
        .of("Rockchip RK3399 (GIC-500)", "RK3399 integration")
        .on(&["rockchip,rk3399"]),
    row(IdRegister::Distributor, 0, 0, Erratum::AffinityOneLevelDown)
        .of("ASR8601", "8601001")
        .on(&["asr,asr8601-gic-v3"]),
    row(IdRegister::Redistributor, 0, 0, Erratum::WakerUnusable)
        .of("Qualcomm MSM8996", "MSM8996 firmware")
        .on(&["qcom,msm8996-gic-v3"]),
    row(IdRegister::Redistributor, 0, 0, Erratum::PrivatePrioritiesLost)
        .of("MediaTek MT8183, MT8192, MT8195", "Chromebook firmware")
        .on(&["mediatek,broken-save-restore-fw"]),
    row(IdRegister::Redistributor, 0xffff_ffff, 0x0201_743b, Erratum::TablesNotCoherent)
        .of("Rockchip RK3588 (GIC-600)", "3588001")
        .on(&["rockchip,rk3588", "rockchip,rk3588s"]),
    row(IdRegister::Redistributor, 0xffff_ffff, 0x0201_743b, Erratum::TablesBelow4GiB)
        .of("Rockchip RK3566, RK3568 (GIC-600)", "3568002")
        .on(&["rockchip,rk3566", "rockchip,rk3568"]),
    row(IdRegister::Redistributor, 0xffff_ffff, 0x0201_743b, Erratum::TablesBelow4GiB)
        .of("Renesas R-Car S4, V4H, V4M (GIC-600)", "GEN4GICITS1")
        .on(&["renesas,r8a779f0", "renesas,r8a779g0", "renesas,r8a779h0"]),
    row(IdRegister::Its, 0xffff_0fff, 0xa100_034c, Erratum::ItsTableAttributes)
        .of("Cavium ThunderX, pass 1", "22375, 24313"),
    row(IdRegister::Its, 0xffff_0fff, 0xa100_034c, Erratum::ItsLocalNodeOnly)
        .of("Cavium ThunderX, pass 1", "23144"),
    row(IdRegister::Its, 0xffff_ffff, 0x0000_1070, Erratum::ItsTranslationEntry16Bytes)
        .of("Qualcomm QDF2400", "0065"),
    row(IdRegister::Its, 0xffff_ffff, 0x0001_143b, Erratum::ItsBehindPreIts)
        .of("Socionext SynQuacer (GIC-500)", "pre-ITS")
        .on(&["socionext,synquacer-pre-its"]),
    row(IdRegister::Its, 0xffff_ffff, 0x0000_0004, Erratum::VirtualLpiFrameOffset)
        .of("HiSilicon Hip07", "161600802"),
    row(IdRegister::Its, 0xffff_ffff, 0x0005_1736, Erratum::VirtualPeCachesSurviveUnmap)
        .of("HiSilicon Hip09", "162100801"),
    row(IdRegister::Its, 0xffff_ffff, 0x0201_743b, Erratum::TablesNotCoherent)
        .of("Rockchip RK3588 (GIC-600)", "3588001")
        .on(&["rockchip,rk3588", "rockchip,rk3588s"]),
    row(IdRegister::Its, 0xffff_ffff, 0x0201_743b, Erratum::TablesBelow4GiB)
        .of("Rockchip RK3566, RK3568 (GIC-600)", "3568002")
        .on(&["rockchip,rk3566", "rockchip,rk3568"]),
    row(IdRegister::Its, 0xffff_ffff, 0x0201_743b, Erratum::TablesBelow4GiB)
        .of("Renesas R-Car S4, V4H, V4M (GIC-600)", "GEN4GICITS1")
        .on(&["renesas,r8a779f0", "renesas,r8a779g0", "renesas,r8a779h0"]),
    acknowledge_not_synchronized(0xa1, "Marvell (Cavium) ThunderX"),
    acknowledge_not_synchronized(0xa2, "Marvell (Cavium) ThunderX 81xx"),
    acknowledge_not_synchronized(0xa3, "Marvell (Cavium) ThunderX 83xx"),
    acknowledge_not_synchronized(0xb1, "Marvell (Cavium) OCTEON TX2 98xx"),
    acknowledge_not_synchronized(0xb2, "Marvell (Cavium) OCTEON TX2 96xx"),
    acknowledge_not_synchronized(0xb3, "Marvell (Cavium) OCTEON TX2 95xx"),
    acknowledge_not_synchronized(0xb4, "Marvell (Cavium) OCTEON TX2 95xxN"),
    acknowledge_not_synchronized(0xb5, "Marvell (Cavium) OCTEON TX2 95xxMM"),
    acknowledge_not_synchronized(0xb6, "Marvell (Cavium) OCTEON TX2 95xxO"),
];

/// Creates a row matching frames whose identification register equals `value` under `mask`.
const fn row(frame: IdRegister, mask: u32, value: u32, erratum: Erratum) -> ErratumEntry {
    ErratumEntry { frame, mask, value, machines: &[], erratum, number: "", product: "" }
}

/// Creates a row for Cavium and Marvell CPUs with this part number (`MIDR_EL1.PartNum`), in every
/// variant and revision.
const fn acknowledge_not_synchronized(part: u32, product: &'static str) -> ErratumEntry {
    let value = 0x430f_0000 | part << 4;
    row(IdRegister::Cpu, 0xff0f_fff0, value, Erratum::AcknowledgeNotSynchronized)
        .of(product, "23154, 38545")
}

/// Returns a frame's errata. `machine` lists names as in [`ErratumEntry::machines`].
pub fn matching<'a>(
    frame: IdRegister,
    iidr: Iidr,
    machine: &'a [&'a str],
) -> impl Iterator<Item = &'static ErratumEntry> + 'a {
    matching_names(frame, iidr, machine)
}

/// Returns a frame's errata like [`matching`], but accepts names of any string type.
pub(crate) fn matching_names<S: AsRef<str>>(
    frame: IdRegister,
    iidr: Iidr,
    machine: &[S],
) -> impl Iterator<Item = &'static ErratumEntry> {
    TABLE.iter().filter(move |entry| entry.applies(frame, iidr, machine))
}

impl ErratumEntry {
    /// Sets the row's product name and the vendor's erratum number.
    const fn of(self, product: &'static str, number: &'static str) -> Self {
        Self { number, product, ..self }
    }

    /// Restricts the row to these [machines](Self::machines).
    const fn on(self, machines: &'static [&'static str]) -> Self {
        Self { machines, ..self }
    }

    fn applies<S: AsRef<str>>(&self, frame: IdRegister, iidr: Iidr, machine: &[S]) -> bool {
        self.frame == frame
            && u32::from(iidr) & self.mask == self.value
            && (self.machines.is_empty()
                || machine.iter().any(|name| self.machines.contains(&name.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    fn found(frame: IdRegister, iidr: u32, machine: &[&str]) -> Vec<Erratum> {
        matching(frame, Iidr::from(iidr), machine).map(|entry| entry.erratum).collect()
    }

    #[test]
    fn no_erratum_entry_has_value_bits_outside_its_mask() {
        assert_eq!(found(IdRegister::Cpu, 0x430f_0a11, &[]), [Erratum::AcknowledgeNotSynchronized]);
        for entry in TABLE {
            assert_eq!(entry.value & !entry.mask, 0, "{} {}", entry.product, entry.number);
            assert!(!entry.product.is_empty() && !entry.number.is_empty(), "{entry:?}");
        }
    }

    #[test]
    fn revision_bits_outside_the_mask_do_not_affect_a_match() {
        assert_eq!(
            found(IdRegister::Distributor, 0x0401_743b, &[]),
            [Erratum::SpiWakeLostOnDeactivation]
        );
        assert_eq!(found(IdRegister::Distributor, 0x0403_043b, &[]), []);
    }

    #[test]
    fn an_iidr_shared_by_products_matches_only_with_the_machine_name() {
        assert_eq!(found(IdRegister::Its, 0x0201_743b, &["rockchip,rk3399"]), []);
        let rk3588 = ["radxa,rock-5b", "rockchip,rk3588"];
        assert_eq!(found(IdRegister::Its, 0x0201_743b, &rk3588), [Erratum::TablesNotCoherent]);
    }

    #[test]
    fn an_its_iidr_matches_no_redistributor_erratum() {
        assert_eq!(found(IdRegister::Redistributor, 0xa100_034c, &[]), []);
    }

    #[test]
    fn emulated_gics_have_no_errata() {
        for iidr in [0x4b00_143b, 0x4b00_243b, 0x4b00_343b, 0x0000_043b] {
            for frame in [IdRegister::Distributor, IdRegister::Redistributor, IdRegister::Its] {
                assert_eq!(found(frame, iidr, &[]), []);
            }
        }
    }
}
