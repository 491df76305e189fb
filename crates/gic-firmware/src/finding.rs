//! Defects of the input that leave it readable.

use crate::origin::Origin;
use alloc::string::String;
use core::fmt;

/// Something firmware got wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Rule that it breaks.
    pub rule: Rule,
    /// Location in the input.
    pub origin: Origin,
    /// Details, for a person.
    pub message: String,
}

impl Finding {
    /// Returns the severity of its rule.
    pub const fn severity(&self) -> Severity {
        self.rule.severity()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] {}: {}", self.severity(), self.rule, self.origin, self.message)
    }
}

/// Severity of a finding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// Worth knowing, no mistake.
    Note,
    /// Works by luck or by a driver's leniency.
    Warning,
    /// Something does not work.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Defines [`Rule`] with its names, severities and explanations in one table.
macro_rules! rules {
    ($($variant:ident $name:literal $severity:ident $summary:literal $help:literal;)*) => {
        /// The rules. Their names are stable.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum Rule {
            $(#[doc = $summary] $variant,)*
        }

        impl Rule {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Returns the severity of a breach.
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$variant => Severity::$severity,)*
                }
            }

            /// Returns a line that says what the rule finds.
            pub const fn summary(self) -> &'static str {
                match self {
                    $(Self::$variant => $summary,)*
                }
            }

            /// Returns the rationale with an example of the fault and of the mend, in Markdown.
            ///
            /// Devicetree examples are changes of `rules/base.dts` in this package's sources.
            pub const fn explanation(self) -> &'static str {
                match self {
                    $(Self::$variant => include_str!(concat!("../rules/", $name, ".md")),)*
                }
            }

            /// The rule of this name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|rule| rule.name() == name)
            }

            /// Returns advice for the author of the input.
            pub const fn help(self) -> &'static str {
                match self {
                    $(Self::$variant => $help,)*
                }
            }
        }
    };
}

rules! {
    MalformedProperty "malformed-property" Error
        "A property of the interrupt system has a length or value that its binding does not allow."
        "Compare the property with its binding; #address-cells, #size-cells and #msi-cells decide \
         its shape.";
    MissingProperty "missing-property" Error
        "A node of the interrupt system lacks a property it cannot do without."
        "Add the property that the node's binding requires.";
    UntranslatableAddress "untranslatable-address" Error
        "A register region cannot be translated to a CPU physical address."
        "Give every bus above the node a `ranges` property that covers the address.";
    UnknownPhandle "unknown-phandle" Error
        "A reference to an MSI controller or an IOMMU leads to no node."
        "Refer to the controller by its label, so that the compiler writes the phandle.";
    DuplicatePhandle "duplicate-phandle" Error
        "Two nodes have the same phandle; references reach the first."
        "Let the compiler number phandles.";
    NotAnMsiController "not-an-msi-controller" Error
        "A reference to an MSI controller leads to a node that is none."
        "Refer to a node with `msi-controller`.";
    NotAnIommu "not-an-iommu" Error
        "A reference to an IOMMU leads to a node that is none."
        "Refer to a node with `#iommu-cells`.";
    MissingMsiController "missing-msi-controller" Warning
        "An MSI controller lacks `msi-controller`: drivers ignore it."
        "Add `msi-controller;` to the node.";
    DisabledController "disabled-controller" Warning
        "A usable device signals through a controller that is disabled."
        "Enable the controller, or disable the device.";
    MissingDeviceId "missing-device-id" Error
        "A platform device names an ITS without saying its DeviceID."
        "Give the ITS `#msi-cells = <1>` and the reference one cell.";
    MapMask "msi-map-mask" Error
        "A map entry's first requester ID has bits that the mask clears: Linux refuses the whole \
         map."
        "Clear those bits in the entry, or keep them in `msi-map-mask`.";
    MapOverlap "msi-map-overlap" Warning
        "Two map entries claim the same requester ID; the first one wins."
        "Make the entries disjoint.";
    MapRange "msi-map-range" Error
        "A map entry is empty or reaches past 32 bits."
        "Correct the entry's length.";
    SeveralOutputCells "several-output-cells" Error
        "An entry of `msi-map` or `iommu-map` holds several IDs, though its target takes several \
         cells: Linux refuses them."
        "Write an entry with length 1 for each ID.";
    MbiRange "mbi-range" Error
        "An MBI range holds INTIDs that are no SPIs."
        "`mbi-ranges` holds INTIDs: SPI numbers plus 32.";
    DirectLpiWithMbi "direct-lpi-with-mbi" Error
        "Direct LPI and MBI on one node: a device could not choose."
        "Describe one of the two.";
    DirectLpiWithIts "direct-lpi-with-its" Error
        "Direct LPI beside an ITS: the registers it rings are then IMPLEMENTATION DEFINED."
        "Describe the ITS alone.";
    RedistributorRegions "redistributor-regions" Error
        "`#redistributor-regions` does not fit `reg`."
        "`reg` holds the distributor, that many redistributor regions, then the CPU interfaces.";
    RedistributorStride "redistributor-stride" Error
        "`redistributor-stride` is no multiple of 64 KiB, or zero."
        "The stride counts bytes; 0x20000 is the usual one.";
    DuplicateAffinity "duplicate-affinity" Error
        "Two CPUs have the same affinity."
        "A CPU's `reg` is its MPIDR affinity, unique in the machine.";
    SeveralGics "several-gics" Note
        "More than one GIC is usable and cascaded to no other; the first is the root."
        "Give each but the root an interrupt at its parent, or disable it.";
    CascadedGic "cascaded-gic" Error
        "A secondary GIC is cascaded to another controller, which does not take its interrupts."
        "Name the parent by `interrupt-parent`, and the interrupt there by `interrupts`.";
    SeveralDistributors "several-distributors" Error
        "A MADT has more than one distributor; the first is described."
        "Keep one GICD structure: ACPI 6.5 §5.2.12.15 allows no more.";
    TableChecksum "table-checksum" Warning
        "An ACPI table's checksum is wrong; operating systems warn and go on."
        "Compute the checksum after the last change of the table.";
    MalformedTable "malformed-table" Error
        "A structure of an ACPI table has a length or a place that it cannot have."
        "Compile the table with `iasl`, which computes lengths and offsets.";
    DuplicateId "duplicate-id" Error
        "Two structures of ACPI tables have the same identification; references reach the first."
        "Number the structures of a kind, and give each PCI segment one root complex.";
    IortReference "iort-reference" Error
        "An ID mapping leads to no ITS group: to no node, to one that takes no IDs, or in circles."
        "Correct the mapping's output reference: the offset of an SMMU or ITS group in the table.";
    UnknownIts "unknown-its" Error
        "An ITS group names an ITS that the MADT does not have."
        "Use the GIC ITS IDs of the MADT in ITS groups.";
    IdCount "iort-id-count" Warning
        "An ID mapping ends with the first ID of another: its count seems to be one too high."
        "State the number of IDs minus one.";
    SingleMapping "iort-single-mapping" Error
        "The single-mapping flag is missing where it must be, or cannot count."
        "Set it for a node's own messages, and on no mapping beside ranges.";
    OtherGicVersion "other-gic-version" Note
        "The machine's GIC is of a version that is not described."
        "GICv5 has its own structures and no distributor; this tool describes GICv2 to GICv4.";
    InterruptSpecifier "interrupt-specifier" Error
        "A wired interrupt of the GIC is neither an SPI nor a PPI."
        "The cells are the type (0 SPI, 1 PPI, 2 extended SPI, 3 extended PPI), the number in it, \
         and flags.";
    MsiOverWired "msi-over-wired" Error
        "A controller hands out an SPI for messages that a device's wire drives, too."
        "Take the wired SPI out of the controller's range.";
    MsiRangesOverlap "msi-ranges-overlap" Error
        "Two controllers hand out the same SPI for messages."
        "Make the ranges disjoint.";
    FrameRange "frame-range" Error
        "The override of a v2m frame's SPIs is incomplete, or holds INTIDs that are no SPIs."
        "Give `arm,msi-base-spi` and `arm,msi-num-spis` both; the base is an INTID, at least 32.";
    UnusedMsiFrame "unused-msi-frame" Note
        "A v2m frame stands beside an ITS: operating systems use the ITS alone."
        "Leave the frame out, or the ITS, if the machine has only one of them.";
    ItsMsiCells "its-msi-cells" Warning
        "An ITS does not take one cell: references cannot carry a DeviceID."
        "Write `#msi-cells = <1>;`.";
    DoorbellOutsideRegisters "doorbell-outside-registers" Warning
        "A controller's doorbell lies outside of the registers that firmware gives it."
        "An ITS has two frames of 64 KiB: give it 0x20000 bytes.";
    RegistersOverlap "registers-overlap" Error
        "Two frames of the interrupt system claim the same addresses."
        "Correct the base or the size of one of them.";
    TooFewRedistributors "too-few-redistributors" Error
        "The redistributor regions have no room for all CPUs."
        "Give a region for each cluster, as long as CPUs times the distance of redistributors.";
    GiccRedistributor "gicc-redistributor" Error
        "A CPU has no redistributor in the tables, or one outside of the redistributor regions."
        "Describe redistributors by GICR structures alone, or by every GICC.";
    HostWithoutMsi "host-without-msi" Warning
        "A PCI host names no MSI controller, though the machine has one."
        "Give the host `msi-map`, or its segment a root complex in the IORT.";
    UncoveredBus "uncovered-bus" Note
        "Some buses behind a host are not in its map: functions there cannot signal."
        "Let the map cover the host's `bus-range`.";
    UnreachableMapEntry "unreachable-map-entry" Warning
        "A map entry holds requester IDs of buses that are not behind the host."
        "Count requester IDs from the first bus of `bus-range`: bus times 256.";
    RequesterBeyondPci "requester-beyond-pci" Warning
        "A PCI host's map entry reaches past the 16 bits of a requester ID."
        "Shorten the entry to 0x10000 requesters, less the first.";
    MaskWithoutMap "mask-without-map" Warning
        "`msi-map-mask` stands on a node without `msi-map`: nothing reads it."
        "Add the map, or remove the mask.";
    SharedDeviceId "shared-device-id" Warning
        "Two requesters have the same DeviceID at one ITS: they share interrupts and isolation."
        "Give each requester DeviceIDs of its own.";
    PreItsWindow "pre-its-window" Error
        "A DeviceID lies beyond the pre-ITS window: its message has no address."
        "Lower the DeviceID, or state the window as long as it is.";
    DisabledIommu "disabled-iommu" Warning
        "Messages pass an IOMMU that the operating system must not use."
        "Enable the IOMMU, or remove the map to it if its firmware lets messages pass.";
    AddressSizeLimit "address-size-limit" Error
        "A device's address bits do not reach the doorbell."
        "Correct the memory address size limit, or put an SMMU between.";
    ItsWithoutLpis "its-without-lpis" Error
        "The machine has an ITS, but its registers know no physical LPIs."
        "Disable the ITS in the description, or build the GIC with LPIs.";
    DeviceIdWidth "device-id-width" Error
        "A DeviceID has more bits than its ITS takes."
        "Lower the DeviceID: GITS_TYPER.Devbits is the width minus one.";
    MbiUnsupported "mbi-unsupported" Error
        "`mbi-ranges` are given, but the distributor takes no message-based SPIs."
        "Remove `mbi-ranges`.";
    DirectLpiUnsupported "direct-lpi-unsupported" Error
        "Direct LPI is described, but a redistributor does not have it."
        "Remove the description of direct LPIs.";
    SpiBeyondDistributor "spi-beyond-distributor" Error
        "An interrupt is described that the distributor does not have."
        "GICD_TYPER.ITLinesNumber bounds INTIDs: 32 times the number plus one.";
    ContradictingCpus "contradicting-cpus" Error
        "Two descriptions of one machine have different CPUs."
        "Compare the affinities that both state.";
    ContradictingGic "contradicting-gic" Error
        "Two descriptions of one machine place the GIC's registers differently."
        "Compare distributor and redistributors.";
    ContradictingControllers "contradicting-controllers" Error
        "Two descriptions of one machine have different MSI controllers."
        "Describe the same controllers in both, or disable one in both.";
    ContradictingRoutes "contradicting-routes" Error
        "Two descriptions of one machine give a requester different DeviceIDs or controllers."
        "Compare the map of the devicetree with the ID mappings of the IORT.";
    TooManyFindings "too-many-findings" Warning
        "There are more findings than are listed."
        "Correct the listed ones first.";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
