//! The rules of `doorbell snapshot lint`.

use gic_firmware::Severity;

/// A rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Rule {
    MissingAttribute,
    RefusedAttribute,
    NotRestorable,
    SharedPendingTable,
    TableNotIncluded,
    TablesRefused,
    ItsWithoutTable,
    CollectionTarget,
    IdleTarget,
    UnmappedCollection,
    IntIdMappedTwice,
    UndeliverableLpi,
    UnprocessedCommands,
    ActiveWithoutPriority,
}

impl Rule {
    /// All rules, in the order in which findings are printed.
    pub(crate) const ALL: [Self; 14] = [
        Self::MissingAttribute,
        Self::RefusedAttribute,
        Self::NotRestorable,
        Self::SharedPendingTable,
        Self::TableNotIncluded,
        Self::TablesRefused,
        Self::ItsWithoutTable,
        Self::CollectionTarget,
        Self::IdleTarget,
        Self::UnmappedCollection,
        Self::IntIdMappedTwice,
        Self::UndeliverableLpi,
        Self::UnprocessedCommands,
        Self::ActiveWithoutPriority,
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }

    pub(crate) const fn name(self) -> &'static str {
        self.text().0
    }

    pub(crate) const fn summary(self) -> &'static str {
        self.text().1
    }

    pub(crate) const fn fix(self) -> &'static str {
        self.text().2
    }

    pub(crate) const fn severity(self) -> Severity {
        match self {
            Self::IdleTarget
            | Self::UnmappedCollection
            | Self::UndeliverableLpi
            | Self::UnprocessedCommands
            | Self::ActiveWithoutPriority => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// Returns the rule's name, summary and fix.
    const fn text(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::MissingAttribute => (
                "missing-attribute",
                "a register is not in the snapshot",
                "save every attribute that Linux's arm-vgic-v3.rst and arm-vgic-its.rst list; \
                 after a restore, the register has its reset value",
            ),
            Self::RefusedAttribute => (
                "refused-attribute",
                "KVM refuses a register's value",
                "restore on a host with the same GIC, with the values exactly as KVM returned them",
            ),
            Self::NotRestorable => (
                "not-restorable",
                "the model refuses the state",
                "restore the state into a machine with the same configuration; if the file was \
                 changed or damaged, save the state again",
            ),
            Self::SharedPendingTable => (
                "shared-pending-table",
                "several vCPUs have the same pending table",
                "save GICR_PENDBASER with each vCPU's own MPIDR in bits 63:32 of the attribute; \
                 an MPIDR of 0 reads the registers of the first vCPU for all of them",
            ),
            Self::TableNotIncluded => (
                "table-not-included",
                "a table in guest memory is not in the snapshot",
                "save the tables (KVM_DEV_ARM_ITS_SAVE_TABLES, \
                 KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES) before guest memory is copied, include \
                 the pages that KVM wrote, and restore memory before the ITS",
            ),
            Self::TablesRefused => (
                "tables-refused",
                "KVM refuses an ITS's tables",
                "copy guest memory after KVM_DEV_ARM_ITS_SAVE_TABLES, while no vCPU runs; without \
                 tables, the guest receives no LPI",
            ),
            Self::ItsWithoutTable => (
                "its-without-table",
                "an ITS is enabled without a valid table or queue",
                "restore GITS_CBASER and GITS_BASER<n> before GITS_CTLR; if the guest enabled the \
                 ITS without them, its driver is at fault",
            ),
            Self::CollectionTarget => (
                "collection-target",
                "a collection's target vCPU does not exist",
                "create the same vCPUs, with the same vcpu_id, before the tables are restored",
            ),
            Self::IdleTarget => (
                "idle-target",
                "events target a vCPU that cannot receive LPIs",
                "bring the vCPU up with its LPIs enabled before its devices send, or move the \
                 events to another collection (MOVI) before the vCPU goes offline",
            ),
            Self::UnmappedCollection => (
                "unmapped-collection",
                "events belong to a collection without a target",
                "map the collection (MAPC) before its events (MAPTI); the ITS drops their messages",
            ),
            Self::IntIdMappedTwice => (
                "intid-mapped-twice",
                "two events are mapped to the same INTID",
                "map each event to a separate INTID (MAPTI), and discard an event (DISCARD) before \
                 its INTID is reused",
            ),
            Self::UndeliverableLpi => (
                "undeliverable-lpi",
                "a pending LPI cannot be delivered",
                "enable the LPI in the configuration table and send INV; otherwise the device's \
                 message is lost to the guest",
            ),
            Self::UnprocessedCommands => (
                "unprocessed-commands",
                "an ITS has commands that it has not executed",
                "save only after GITS_CREADR has reached GITS_CWRITER; a stalled queue needs the \
                 guest's Retry",
            ),
            Self::ActiveWithoutPriority => (
                "active-without-priority",
                "an interrupt is active at a vCPU without an active priority",
                "save ICC_AP0R<n>_EL1 and ICC_AP1R<n>_EL1 with the MPIDR of the vCPU that \
                 acknowledged the interrupt",
            ),
        }
    }
}
