//! The rules of `doorbell snapshot lint`, and their findings.

use doorbell_inspection::lint::{Row, RuleText, place};
use gic_firmware::Severity;
use msi_types::explain::Code;

/// Finding in a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    pub(crate) rule: Rule,
    /// Name of the affected object.
    pub(crate) place: String,
    pub(crate) message: String,
}

impl Finding {
    /// Returns the row of the finding in the output.
    pub(crate) fn row(&self, source: &str) -> Row {
        let (rule, origin) = (self.rule.text(), place::origin(&self.place));
        Row { fix: Some(rule.help), ..Row::new(source, rule, origin, self.message.clone()) }
    }
}

/// Callback that receives the rule, place and message of a finding.
pub(super) type Report<'a> = dyn FnMut(Rule, String, String) + 'a;

/// Defines [`Rule`]. Each row states a rule's name, code, severity, summary and fix. Each rule has
/// one cause, so that its fix is the same for all of its findings.
macro_rules! rules {
    ($($rule:ident $name:literal $code:literal $severity:ident $summary:literal $fix:literal;)*) => {
        /// A rule.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub(crate) enum Rule {
            $($rule,)*
        }

        impl Rule {
            /// All rules, in the order in which findings are printed.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$rule,)*];

            /// Returns what is said about the rule.
            pub(crate) const fn text(self) -> RuleText {
                let (name, code, severity, summary, help) = match self {
                    $(Self::$rule => ($name, Code($code), Severity::$severity, $summary, $fix),)*
                };
                RuleText { name, code, severity, summary, help, explanation: "" }
            }
        }
    };
}

rules! {
    UnreadableFile "unreadable-file" 301 Error
        "a file cannot be read as a snapshot"
        "pass a state that a monitor saved in Doorbell's format or in that of KVM";
    MissingAttribute "missing-attribute" 302 Error
        "a register is not in the snapshot"
        "save every attribute that Linux's arm-vgic-v3.rst and arm-vgic-its.rst list; after a \
         restore, the register has its reset value";
    IgnoredAttribute "ignored-attribute" 303 Warning
        "a restore ignores a register that the machine does not have"
        "save KVM_DEV_ARM_VGIC_GRP_NR_IRQS and every vCPU and ITS with the registers, and restore \
         on a VM with the same number of interrupts";
    RefusedAttribute "refused-attribute" 304 Error
        "KVM refuses a register's value"
        "restore on a host with the same GIC, with the values exactly as KVM returned them";
    NotRestorable "not-restorable" 305 Error
        "the model refuses the state"
        "restore the state into a machine with the same configuration; if the file was changed or \
         damaged, save the state again";
    SharedPendingTable "shared-pending-table" 306 Error
        "several vCPUs have the same pending table"
        "save GICR_PENDBASER with each vCPU's own MPIDR in bits 63:32 of the attribute; an MPIDR \
         of 0 reads the registers of the first vCPU for all of them";
    TableNotIncluded "table-not-included" 307 Error
        "a table in guest memory is not in the snapshot"
        "save the tables (KVM_DEV_ARM_ITS_SAVE_TABLES, KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES) \
         before guest memory is copied, include the pages that KVM wrote, and restore memory \
         before the ITS";
    TablesRefused "tables-refused" 308 Error
        "KVM refuses an ITS's tables"
        "copy guest memory after KVM_DEV_ARM_ITS_SAVE_TABLES, while no vCPU runs; without tables, \
         the guest receives no LPI";
    ItsWithoutTable "its-without-table" 309 Error
        "an ITS is enabled without a valid table or queue"
        "restore GITS_CBASER and GITS_BASER<n> before GITS_CTLR; if the guest enabled the ITS \
         without them, its driver is at fault";
    CollectionTarget "collection-target" 310 Error
        "a collection's target vCPU does not exist"
        "create the same vCPUs, with the same vcpu_id, before the tables are restored";
    SwappedVcpus "swapped-vcpus" 311 Error
        "a vCPU has the pending LPIs of another vCPU"
        "give each vCPU its own MPIDR in bits 63:32 of its attributes, and the vcpu_id that it had \
         when the tables were saved";
    SavedWhileRunning "saved-while-running" 312 Error
        "an ITS's tables differ from its queue or the pending tables"
        "stop all vCPUs, save the tables (KVM_DEV_ARM_ITS_SAVE_TABLES, \
         KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES), then read the registers and copy guest memory";
    ItsWithoutMappings "its-without-mappings" 313 Warning
        "an ITS has executed commands, but has no mappings"
        "copy guest memory after KVM_DEV_ARM_ITS_SAVE_TABLES, which writes the mappings to it";
    ItsDisabled "its-disabled" 314 Warning
        "an ITS with mapped devices is disabled"
        "restore GITS_CTLR last, with the value that was saved; a disabled ITS drops all messages";
    IdleTarget "idle-target" 315 Warning
        "events target a vCPU that cannot receive LPIs"
        "bring the vCPU up with its LPIs enabled before its devices send, or move the events to \
         another collection (MOVI) before the vCPU goes offline";
    UnmappedCollection "unmapped-collection" 316 Warning
        "events belong to a collection without a target"
        "map the collection (MAPC) before its events (MAPTI); the ITS drops their messages";
    IntIdMappedTwice "intid-mapped-twice" 317 Error
        "two events are mapped to the same INTID"
        "map each event to a separate INTID (MAPTI), and discard an event (DISCARD) before its \
         INTID is reused";
    LpiBeyondTable "lpi-beyond-table" 318 Warning
        "an LPI exceeds its target's configuration table"
        "save and restore GICR_PROPBASER with its IDbits; if the guest wrote a smaller value, it \
         must map events to INTIDs within it";
    ConfigurationLost "configuration-lost" 319 Warning
        "a pending LPI's configuration byte is 0"
        "copy the configuration table at GICR_PROPBASER with guest memory, and restore it before \
         the redistributors";
    PendingLpiDisabled "pending-lpi-disabled" 320 Note
        "a pending LPI is disabled"
        "nothing, if the guest masks the LPI; otherwise, it must enable the LPI in the \
         configuration table and send INV";
    PendingWithoutEvent "pending-without-event" 321 Warning
        "a pending LPI has no event"
        "save the pending tables and the ITS's tables while no vCPU runs; if the guest unmapped \
         the event, it must send CLEAR or DISCARD while the event is mapped";
    UnprocessedCommands "unprocessed-commands" 322 Warning
        "an ITS has commands that it has not executed"
        "save only after GITS_CREADR has reached GITS_CWRITER; a stalled queue needs the guest's \
         Retry";
    RouteToNobody "route-to-nobody" 323 Warning
        "an enabled SPI is routed to a vCPU that is absent or off"
        "save and restore both halves of GICD_IROUTER<n>, and create the vCPUs with the same \
         affinities; the guest must route the SPI away from a vCPU before the vCPU goes offline";
    GroupDisabled "group-disabled" 324 Warning
        "the group of enabled interrupts is disabled"
        "save and restore GICD_CTLR, and each vCPU's ICC_IGRPEN0_EL1 and ICC_IGRPEN1_EL1 with its \
         own MPIDR";
    InterfaceMasked "interface-masked" 325 Warning
        "the priority mask of a vCPU with enabled interrupts is 0"
        "save and restore ICC_PMR_EL1 with the vCPU's own MPIDR; its reset value, 0, masks all \
         interrupts";
    PendingMasked "pending-masked" 326 Note
        "the priority mask of a vCPU holds back pending interrupts"
        "nothing, if the guest masks interrupts by priority; otherwise, save ICC_PMR_EL1 with the \
         vCPU's own MPIDR";
    ActiveWithoutPriority "active-without-priority" 327 Warning
        "an interrupt is active at a vCPU without an active priority"
        "save ICC_AP0R<n>_EL1 and ICC_AP1R<n>_EL1 with the MPIDR of the vCPU that acknowledged the \
         interrupt";
    StaleActivePriority "stale-active-priority" 328 Warning
        "a vCPU has an active priority without an active interrupt"
        "save ICC_AP0R<n>_EL1 and ICC_AP1R<n>_EL1 with each vCPU's own MPIDR, and \
         GICD_ISACTIVER<n> and GICR_ISACTIVER0 at the same time; interrupts of the same or a lower \
         priority wait";
    PriorityOfLpi "priority-of-lpi" 329 Note
        "a vCPU has an active priority that only an LPI explains"
        "nothing, if the vCPU was saved while it handled an LPI, which has no active state; \
         otherwise, save ICC_AP1R<n>_EL1 with the vCPU's own MPIDR";
}
