//! The lint rules, each with what is said about it.

use core::fmt;
use msi_types::explain::Code;

/// Severity of a finding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// A remark about something that is not a mistake.
    Note,
    /// A mistake that common drivers happen to tolerate.
    Warning,
    /// A mistake that keeps a part of the machine from working.
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

/// Defines [`Rule`]. Each row of the table states a rule's name, code, severity, summary and help.
/// A new rule takes the next code, wherever its row is.
macro_rules! rules {
    ($($variant:ident $name:literal $code:literal $severity:ident
       $summary:literal $help:literal;)*) => {
        /// A lint rule. Its name is stable across versions.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum Rule {
            $(#[doc = $summary] $variant,)*
        }

        impl Rule {
            /// All rules.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the rule with this name; `None` if no rule has this name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|rule| rule.name() == name)
            }

            /// Returns the stable name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Returns the stable code, which the command `doorbell why` explains.
            pub const fn code(self) -> Code {
                match self {
                    $(Self::$variant => Code($code),)*
                }
            }

            /// Returns the severity of a violation.
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$variant => Severity::$severity,)*
                }
            }

            /// Returns a one-line summary of the mistake.
            pub const fn summary(self) -> &'static str {
                match self {
                    $(Self::$variant => $summary,)*
                }
            }

            /// Returns the rationale, with an example of the fault and of its fix, in Markdown.
            ///
            /// Devicetree examples are changes to `rules/base.dts` in the sources of this package.
            pub const fn explanation(self) -> &'static str {
                match self {
                    $(Self::$variant => include_str!(concat!("../rules/", $name, ".md")),)*
                }
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
    MalformedProperty "malformed-property" 101 Error
        "A property of the interrupt system has a length or value that its binding does not allow."
        "Compare the property with its binding; #address-cells, #size-cells and #msi-cells decide \
         its shape.";
    MissingProperty "missing-property" 102 Error
        "A node of the interrupt system lacks a required property."
        "Add the property that the node's binding requires.";
    UntranslatableAddress "untranslatable-address" 103 Error
        "A register region cannot be translated to a CPU physical address."
        "Give every bus above the node a `ranges` property that covers the address.";
    UnknownPhandle "unknown-phandle" 104 Error
        "A reference to an interrupt controller, an MSI controller or an IOMMU has no target."
        "Refer to the controller by its label, so that the compiler writes the phandle.";
    DuplicatePhandle "duplicate-phandle" 105 Error
        "Two nodes have the same phandle; references reach the first."
        "Let the compiler number phandles.";
    NotAnMsiController "not-an-msi-controller" 106 Error
        "A reference to an MSI controller resolves to a node that is not one."
        "Refer to a node with `msi-controller`.";
    NotAnIommu "not-an-iommu" 107 Error
        "A reference to an IOMMU resolves to a node that is not one."
        "Refer to a node with `#iommu-cells`.";
    UnknownStatus "unknown-status" 108 Warning
        "A node has a status that does not exist; operating systems read it as disabled."
        "Write `okay` or `disabled`.";
    UnknownGic "unknown-gic" 109 Error
        "The GIC has a compatible string that no driver knows."
        "Write `arm,gic-v3` for a GICv3 or GICv4, `arm,gic-400` or another binding's for a GICv2.";
    MisplacedIts "misplaced-its" 110 Error
        "An ITS is described without a GICv3, which it belongs to."
        "Correct the compatible string of the GIC, or remove the ITS.";
    SilentIommu "silent-iommu" 111 Warning
        "An SMMUv3 has neither wired interrupts nor messages: its faults go unnoticed."
        "Give it `interrupts` with `eventq` and `gerror`, or `msi-parent`.";
    MissingMsiController "missing-msi-controller" 112 Warning
        "An MSI controller lacks `msi-controller`, so drivers ignore it."
        "Add `msi-controller;` to the node.";
    DisabledController "disabled-controller" 113 Warning
        "A usable device signals through a disabled controller."
        "Enable the controller, or disable the device.";
    MissingDeviceId "missing-device-id" 114 Error
        "A platform device refers to an ITS without stating its DeviceID."
        "Give the ITS `#msi-cells = <1>` and the reference one cell.";
    MapMask "msi-map-mask" 115 Error
        "A map entry's first requester ID has bits that the mask clears: Linux refuses the map."
        "Clear those bits in the entry, or keep them in `msi-map-mask`.";
    MapOverlap "msi-map-overlap" 116 Warning
        "Two map entries claim the same requester ID; the first one wins."
        "Make the entries disjoint.";
    MapRange "msi-map-range" 117 Error
        "A map entry is empty or reaches past 32 bits."
        "Correct the entry's length.";
    SeveralOutputCells "several-output-cells" 118 Error
        "A map entry contains several IDs, although its target takes several cells."
        "Write one entry of length 1 for each ID.";
    MbiRange "mbi-range" 119 Error
        "An MBI range contains INTIDs that are not SPIs."
        "`mbi-ranges` holds INTIDs: SPI numbers plus 32.";
    MsiControllerWithoutKind "msi-controller-without-kind" 120 Error
        "A GICv3 is marked as an MSI controller, but nothing states where devices write."
        "Add `mbi-ranges`, or `arm,direct-lpi` with `#msi-cells = <0>` if there is no ITS.";
    DirectLpiWithMbi "direct-lpi-with-mbi" 121 Error
        "Direct LPI and MBI are described on one node, so references to it are ambiguous."
        "Describe one of the two.";
    DirectLpiWithIts "direct-lpi-with-its" 122 Error
        "Direct LPI is described next to an ITS, which makes its registers IMPLEMENTATION DEFINED."
        "Describe the ITS alone.";
    RedistributorRegions "redistributor-regions" 123 Error
        "`#redistributor-regions` does not match `reg`."
        "`reg` holds the distributor, that many redistributor regions, then the CPU interfaces.";
    RedistributorStride "redistributor-stride" 124 Error
        "`redistributor-stride` is zero or not a multiple of 64 KiB."
        "The stride counts bytes; 0x20000 is the usual one.";
    DuplicateAffinity "duplicate-affinity" 125 Error
        "Two CPUs have the same affinity."
        "A CPU's `reg` is its MPIDR affinity, unique in the machine.";
    SeveralGics "several-gics" 126 Note
        "More than one usable GIC is not cascaded to another one; the first is the root."
        "Give each but the root an interrupt at its parent, or disable it.";
    CascadedGic "cascaded-gic" 127 Error
        "A secondary GIC is cascaded to another controller, which does not receive its interrupts."
        "Name the parent by `interrupt-parent`, and the interrupt there by `interrupts`.";
    SeveralDistributors "several-distributors" 128 Error
        "A MADT has more than one distributor; only the first is described."
        "Keep one GICD structure: ACPI 6.5 §5.2.12.15 allows no more.";
    TableChecksum "table-checksum" 129 Warning
        "An ACPI table's checksum is wrong; operating systems warn and continue."
        "Compute the checksum after the last change of the table.";
    MalformedTable "malformed-table" 130 Error
        "A structure of an ACPI table has an impossible length or position."
        "Compile the table with `iasl`, which computes lengths and offsets.";
    DuplicateId "duplicate-id" 131 Error
        "Two structures of ACPI tables have the same identifier; references reach the first."
        "Number the structures of a kind, and give each PCI segment one root complex.";
    IortReference "iort-reference" 132 Error
        "An ID mapping does not lead to an ITS group: no node, a node without IDs, or a loop."
        "Correct the mapping's output reference: the offset of an SMMU or ITS group in the table.";
    UnknownIts "unknown-its" 133 Error
        "An ITS group names an ITS that is not in the MADT."
        "Use the GIC ITS IDs of the MADT in ITS groups.";
    IdCount "iort-id-count" 134 Warning
        "An ID mapping ends with the first ID of another: its count seems to be one too high."
        "State the number of IDs minus one.";
    SingleMapping "iort-single-mapping" 135 Error
        "The single-mapping flag is missing where it is required, or is set where it has no effect."
        "Set it for a node's own messages, but not on a mapping next to ranges.";
    OtherGicVersion "other-gic-version" 136 Note
        "The machine's GIC has a version that is not supported."
        "GICv5 has its own structures and no distributor; this tool describes GICv2 to GICv4.";
    TableLength "table-length" 137 Error
        "A table's header states fewer bytes than the table has: its last structures are not read."
        "State the length of the whole table, including its header.";
    IortNodeCount "iort-node-count" 138 Error
        "The number or offset of nodes in an IORT's header does not match its nodes."
        "Count the nodes; the first one follows the header, at offset 48.";
    UnknownRevision "unknown-revision" 139 Warning
        "A table or an IORT node has an unknown revision or type, so its fields may be misread."
        "State the revision of the specification that the table was written against.";
    OldRevision "old-revision" 140 Note
        "A table or an IORT node states a field that its revision does not have."
        "Raise the revision to the one that introduced the field.";
    UnusedField "unused-field" 141 Note
        "A field or structure of an ACPI table contradicts itself or is empty: it has no effect."
        "Complete it, or leave it out.";
    GicdVersion "gicd-version" 142 Error
        "The GIC version of a GICD contradicts the other structures of the MADT."
        "Redistributors and ITSes belong to a GICv3 or later, addresses of interfaces to a GICv2.";
    NoUsableCpu "no-usable-cpu" 143 Error
        "The MADT enables no CPU, not even the one that boots."
        "Set bit 0 of the flags of the CPUs that are present.";
    GiccMismatch "gicc-mismatch" 144 Warning
        "CPUs differ in a field that operating systems require to be the same on all of them."
        "State the same GSIV or address in each enabled GICC.";
    MissingMaintenanceInterrupt "missing-maintenance-interrupt" 145 Note
        "A GICv3 has no maintenance interrupt, which a hypervisor needs for virtual interrupts."
        "State it in the GIC's `interrupts`, or in each GICC: usually PPI 9, which is INTID 25.";
    GsivClass "gsiv-class" 146 Error
        "A GSIV has the wrong class of interrupt, such as a PPI for a device's wire."
        "GSIVs are INTIDs: PPIs are 16 to 31, SPIs 32 to 1019.";
    SharedGsiv "shared-gsiv" 147 Warning
        "Two interrupts that cannot share a wire have the same GSIV."
        "Give each its own GSIV.";
    UnknownSegment "unknown-segment" 148 Error
        "A root complex of the IORT is for the wrong PCI segment."
        "State the segment of the MCFG and of `_SEG`.";
    ComponentWithoutIts "component-without-its" 149 Note
        "No mapping of a named component of the IORT leads to an ITS: it can only use wires."
        "Map the component to an ITS group, or let its SMMU map its IDs, if it sends messages.";
    SmmuWithoutIts "smmu-without-its" 150 Error
        "Messages of an IORT node end at an SMMU that has no mapping to an ITS group."
        "Give the SMMU an ID mapping to the ITS group, without the single-mapping flag.";
    UnmappedStream "unmapped-stream" 151 Warning
        "An SMMU maps only a part of the IDs that another IORT node sends through it."
        "Let the SMMU's ID mappings cover the outputs of the node; counts are minus one.";
    SmmuWithoutInterrupts "smmu-without-interrupts" 152 Warning
        "An SMMU or counter group has neither wired interrupts nor a mapping for messages."
        "State its GSIVs, or the index of a single mapping to an ITS group.";
    ComponentPath "component-path" 153 Warning
        "A named component of the IORT has a path that no device of the namespace can have."
        "State the full path in upper case, with at most four characters per segment.";
    RmrRange "rmr-range" 154 Error
        "A reserved memory range is missing, malformed, unaligned or claimed twice."
        "Ranges have 20 bytes each, multiples of 64 KiB, and do not overlap.";
    RmrTarget "rmr-target" 155 Error
        "The mapping of a reserved memory range does not lead to an SMMU."
        "Map the range to the SMMU, with the StreamIDs of the device.";
    InterruptSpecifier "interrupt-specifier" 156 Error
        "A wired interrupt of the GIC is neither an SPI nor a PPI."
        "The cells are type (0 SPI, 1 PPI, 2 extended SPI, 3 extended PPI), number and flags.";
    InterruptTrigger "interrupt-trigger" 157 Error
        "A wired interrupt has trigger flags that the GIC does not take."
        "An SPI is edge-triggered, rising (1), or level-triggered, high (4).";
    MissingTrigger "missing-trigger" 158 Warning
        "A wired interrupt has no trigger flags; operating systems warn."
        "State the trigger in the third cell: 1 for a rising edge, 4 for level high.";
    CpuMask "cpu-mask" 159 Note
        "The flags of a GICv3's interrupt contain a CPU mask, which only a GICv2 has."
        "State only the trigger; a GICv3 restricts a PPI to CPUs by a fourth cell, a phandle.";
    ContradictingTriggers "contradicting-triggers" 160 Error
        "Two devices share an SPI, which one states as edge- and one as level-triggered."
        "A GIC has one trigger for each interrupt: correct the number or the flags of one of them.";
    InterruptKind "interrupt-kind" 161 Error
        "A part of each CPU has a shared interrupt, or a single device has a private one."
        "PPIs (type 1, INTIDs 16 to 31) exist once per CPU, SPIs (type 0, INTIDs from 32) once.";
    SharedPrivateInterrupt "shared-private-interrupt" 162 Error
        "Two parts of a CPU have the same private interrupt."
        "Correct the number of one of them: timers, PMU and GIC each have their own PPIs.";
    MissingInterruptParent "missing-interrupt-parent" 163 Error
        "Interrupts have no controller, so operating systems cannot use them."
        "State `interrupt-parent` in the root node.";
    NotAnInterruptController "not-an-interrupt-controller" 164 Error
        "A reference to an interrupt controller resolves to a node that is not one."
        "Refer to a node with `#interrupt-cells`.";
    InterruptMapCells "interrupt-map-cells" 165 Error
        "The entries of `interrupt-map` have more or fewer cells than the parent's address takes."
        "After the parent's phandle, write as many cells as the parent's `#address-cells` states.";
    MissingAddressCells "missing-address-cells" 166 Note
        "The parent of an `interrupt-map` does not state how many address cells its entries have."
        "Write `#address-cells = <0>;` into the controller's node.";
    InterruptMapOverlap "interrupt-map-overlap" 167 Warning
        "Two entries of `interrupt-map` are equal under its mask; the first one is used."
        "Keep the bits in `interrupt-map-mask` in which the entries differ, or remove one entry.";
    MsiOverWired "msi-over-wired" 168 Error
        "A controller hands out an SPI for messages that a device's wire also drives."
        "Take the wired SPI out of the controller's range.";
    MsiRangesOverlap "msi-ranges-overlap" 169 Error
        "Two controllers hand out the same SPI for messages."
        "Make the ranges disjoint.";
    FrameRange "frame-range" 170 Error
        "The override of a v2m frame's SPIs is incomplete, or contains INTIDs that are not SPIs."
        "Give `arm,msi-base-spi` and `arm,msi-num-spis` both; the base is an INTID, at least 32.";
    UnusedMsiFrame "unused-msi-frame" 171 Note
        "A v2m frame is described next to an ITS: operating systems use the ITS alone."
        "Leave out the frame, or the ITS if the machine has only one of them.";
    ItsMsiCells "its-msi-cells" 172 Warning
        "An ITS does not take one cell, so references cannot carry a DeviceID."
        "Write `#msi-cells = <1>;`.";
    DoorbellOutsideRegisters "doorbell-outside-registers" 173 Warning
        "A controller's doorbell lies outside the registers that firmware states for it."
        "An ITS has two frames of 64 KiB: give it 0x20000 bytes.";
    RegistersOverlap "registers-overlap" 174 Error
        "Two register windows of the interrupt system claim the same addresses."
        "Correct the base or the size of one of them.";
    UnusedInterfaceOverlap "unused-interface-overlap" 175 Note
        "The CPU interface of a GICv3 overlaps other registers: Linux does not use it."
        "Leave the interface out, unless the GIC has one for guests.";
    FrameAlignment "frame-alignment" 176 Error
        "The base of a register frame is not aligned as the architecture requires."
        "Correct the address: frames of a GICv3, an ITS and an SMMUv3 are aligned to 64 KiB.";
    EcamAlignment "ecam-alignment" 177 Note
        "An ECAM window starts between two multiples of 1 MiB: Linux maps it as stated."
        "Correct the address, unless the bridge ignores the low bits on purpose.";
    FrameSize "frame-size" 178 Error
        "A register frame is too small for the registers in it."
        "A GICv3 distributor has 0x10000 bytes, an SMMUv3 0x20000, a GIC-400's interface 0x2000.";
    RedistributorSize "redistributor-size" 179 Warning
        "A redistributor region does not hold a whole number of redistributors."
        "Make the size a multiple of 0x20000 or of the stride; on a GICv4 at least 0x40000.";
    EcamSize "ecam-size" 180 Warning
        "The configuration space of a host has no room for some of its buses."
        "Give the window 1 MiB for each bus, or shorten `bus-range`.";
    SharedSegment "shared-segment" 181 Error
        "Two PCI hosts have the same segment (domain) and a bus number in common."
        "Number the segments: give each host its own `linux,pci-domain`, or disjoint buses.";
    TooFewRedistributors "too-few-redistributors" 182 Error
        "The redistributor regions do not have room for all CPUs."
        "Make the regions large enough: together, the number of CPUs times the stride.";
    GiccRedistributor "gicc-redistributor" 183 Error
        "A CPU has no redistributor in the tables, or one outside of the redistributor regions."
        "Describe redistributors by GICR structures alone, or by every GICC.";
    HostWithoutMsi "host-without-msi" 184 Warning
        "A PCI host names no MSI controller, though the machine has one."
        "Give the host `msi-map`, or its segment a root complex in the IORT.";
    SingleBusWithoutMsi "single-bus-without-msi" 185 Note
        "A PCI host with one bus names no MSI controller, though the machine has one."
        "Give the host `msi-map`, unless its integrated functions need no messages.";
    UnmappedFunctions "unmapped-functions" 186 Note
        "The map of a host lists single functions: all others cannot signal."
        "Add the functions of a switch, if one can be connected.";
    UncoveredBus "uncovered-bus" 187 Warning
        "The map of a host omits buses: functions there cannot signal, or bypass the IOMMU."
        "Let the map cover the host's `bus-range`.";
    UnreachableMapEntry "unreachable-map-entry" 188 Warning
        "A map entry contains requester IDs of buses that are not behind the host."
        "Count requester IDs from the first bus of `bus-range`: bus times 256.";
    RequesterBeyondPci "requester-beyond-pci" 189 Warning
        "A PCI host's map entry reaches past the 16 bits of a requester ID."
        "Shorten the entry to 0x10000 requesters, less the first.";
    MaskWithoutMap "mask-without-map" 190 Warning
        "`msi-map-mask` is present on a node without `msi-map`, and has no effect."
        "Add the map, or remove the mask.";
    SharedDeviceId "shared-device-id" 191 Warning
        "Two requesters have the same DeviceID at one ITS: they share interrupts and isolation."
        "Give each requester its own DeviceIDs.";
    SharedStreamId "shared-stream-id" 192 Warning
        "Two requesters have the same StreamID at one IOMMU: they share a translation."
        "Give each host and each device its own StreamIDs.";
    PreItsWindow "pre-its-window" 193 Error
        "A DeviceID lies beyond the pre-ITS window, so its message has no address."
        "Lower the DeviceID, or state the full length of the window.";
    DisabledIommu "disabled-iommu" 194 Note
        "Messages pass a disabled IOMMU: they arrive if firmware lets them pass."
        "Enable the IOMMU, or remove the map to it if its firmware lets messages pass.";
    AddressSizeLimit "address-size-limit" 195 Error
        "A device cannot address the doorbell with its address bits."
        "Correct the memory address size limit, or put an SMMU between them.";
    DoorbellOutsideDmaRanges "doorbell-outside-dma-ranges" 196 Warning
        "The `dma-ranges` of a PCI host, or of a bus above a host or device, do not lead to the \
         doorbell."
        "Add an entry that contains the doorbell to each `dma-ranges` on the way to the root.";
    ItsWithoutLpis "its-without-lpis" 197 Error
        "The machine has an ITS, but its registers report no physical LPIs."
        "Disable the ITS in the description, or build the GIC with LPIs.";
    DeviceIdWidth "device-id-width" 198 Error
        "A DeviceID has more bits than its ITS supports."
        "Lower the DeviceID: GITS_TYPER.Devbits is the width minus one.";
    MbiUnsupported "mbi-unsupported" 199 Error
        "`mbi-ranges` are stated, but the distributor does not support message-based SPIs."
        "Remove `mbi-ranges`.";
    DirectLpiUnsupported "direct-lpi-unsupported" 200 Error
        "Direct LPI is described, but a redistributor does not support it."
        "Remove the description of direct LPIs.";
    SpiBeyondDistributor "spi-beyond-distributor" 201 Error
        "An interrupt is described that the distributor does not implement."
        "GICD_TYPER.ITLinesNumber bounds INTIDs: 32 times the number plus one.";
    ContradictingCpus "contradicting-cpus" 202 Error
        "Two descriptions of one machine have different CPUs."
        "Compare the affinities that both state.";
    ContradictingGic "contradicting-gic" 203 Error
        "Two descriptions of one machine place the GIC's registers differently."
        "Compare distributor and redistributors.";
    ContradictingControllers "contradicting-controllers" 204 Error
        "Two descriptions of one machine have different MSI controllers."
        "Describe the same controllers in both, or disable one in both.";
    ContradictingRoutes "contradicting-routes" 205 Error
        "Two descriptions of one machine give a requester different DeviceIDs or controllers."
        "Compare the map of the devicetree with the ID mappings of the IORT.";
    TooManyFindings "too-many-findings" 206 Warning
        "The input has more findings than are listed."
        "Correct the listed ones first.";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
