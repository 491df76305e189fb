//! Advice on how to remove an obstacle.

use super::words::Lost;
use super::{Obstacle, Stage};

impl Obstacle {
    /// Returns advice on how a driver, guest or firmware can remove the obstacle.
    pub(super) const fn fix(self) -> &'static str {
        if let Self::Setup(fault) = self {
            return fault.fix();
        }
        match self.stage() {
            Stage::Endpoint | Stage::Bus | Stage::Doorbell => self.fix_at_device(),
            Stage::Translation | Stage::Configuration => self.fix_in_tables(),
            _ => self.fix_at_cpu(),
        }
    }

    const fn fix_at_device(self) -> &'static str {
        match self {
            Self::NoVector { .. } => "use a vector below the table size, or request more vectors",
            Self::Absent => "return the function to D0, or detach its driver if it was removed",
            Self::MessagesDisabled => {
                "store the messages, which a reset clears, then set MSI Enable or MSI-X Enable in \
                 Message Control"
            }
            Self::FunctionMasked => "clear Function Mask in Message Control",
            Self::VectorMasked { .. } => "clear the mask bit of the vector",
            Self::NoMessage => "store a message in the vector before unmasking it",
            Self::BothEnabled => "clear MSI Enable or MSI-X Enable",
            Self::MessageDiffers { stored, expected } => match Lost::of(stored, expected) {
                Lost::Everything => {
                    "restore the messages, which a reset clears and a function outside D0 does not \
                     store"
                }
                Lost::HighBits => {
                    "store all bits of the message, or state in the store's `Fit` which it holds"
                }
                Lost::Other => {
                    "find out what overwrote the message; if the function was reset, restore it"
                }
            },
            Self::LineLow => {
                "check to which input the device's line is wired, and that the device holds it \
                 high until it is served; if it only pulses the line, make the interrupt \
                 edge-triggered in GICD_ICFGR<n>"
            }
            Self::BusMasterDisabled => {
                "set Bus Master Enable, without which a function cannot send messages"
            }
            Self::BridgeDisabled { .. } => {
                "set Bus Master Enable of the bridge, which forwards no requests without it"
            }
            Self::MemoryDisabled => "set Memory Space Enable before accessing the MSI-X table",
            Self::PoweredDown { .. } => "return the function to D0 and restore its messages",
            Self::NotMapped { .. } => "map the doorbell's page in the device's IOMMU domain",
            Self::NoDoorbell { .. } => "store the address of a doorbell in the message",
            Self::NoIts { .. } => "use the index of an existing ITS",
            Self::NoIdentity { .. } => "send the message with the device's DeviceID",
            _ => "set a route for the GSI before it is signaled",
        }
    }

    const fn fix_in_tables(self) -> &'static str {
        match self {
            Self::ItsDisabled { .. } => {
                "program GITS_BASER<n> and GITS_CBASER, then set GITS_CTLR.Enabled"
            }
            Self::CommandsQueued { .. } => {
                "wait until GITS_CREADR equals GITS_CWRITER; a stalled queue needs \
                 GITS_CWRITER.Retry"
            }
            Self::InvalidTable { .. } => {
                "write the address of a table with Valid = 1 before GITS_CTLR.Enabled is set"
            }
            Self::NoSecondLevel { .. } => {
                "write a valid first-level entry, visible to the ITS, before MAPD"
            }
            Self::DeviceOutOfRange { .. } => {
                "enlarge the device table in GITS_BASER<n>, or correct the DeviceID in firmware"
            }
            Self::UnmappedDevice { .. } => {
                "map the DeviceID with MAPD, or correct the DeviceID that firmware gives the device"
            }
            Self::EventOutOfRange { .. } => {
                "map the device with a larger interrupt translation table"
            }
            Self::UnmappedEvent { .. } => "map the event with MAPTI or MAPI after MAPD",
            Self::UnmappedCollection { .. } => "map the collection to a redistributor with MAPC",
            Self::NoSuchInterrupt { .. } => "use an INTID that the controller implements",
            Self::LevelSensitive { .. } => "make the interrupt edge-triggered in GICD_ICFGR<n>",
            Self::NoEvent { .. } => "map an event to the LPI with MAPTI or MAPI",
            Self::OtherTable { .. } => {
                "find out what wrote the register; a VMM must restore each CPU's own value"
            }
            Self::WriteIgnored { .. } => "write the register before the enable bit is set",
            Self::WrongDevice { .. } => {
                "attach the function with the requester ID under which the host bridge receives \
                 its messages"
            }
            Self::LpisDisabled { .. } => {
                "program GICR_PROPBASER and GICR_PENDBASER, then set GICR_CTLR.EnableLPIs"
            }
            Self::NoConfigurationTable { .. } => {
                "point GICR_PROPBASER to a table in memory before setting GICR_CTLR.EnableLPIs"
            }
            Self::NoPendingTable { .. } => {
                "point GICR_PENDBASER to a table in memory before setting GICR_CTLR.EnableLPIs"
            }
            Self::BeyondTable { .. } => {
                "enlarge GICR_PROPBASER.IDbits and the tables, or map a smaller INTID"
            }
            Self::StaleConfiguration { .. } => {
                "invalidate with INV, INVALL or GICR_INVLPIR after each change of the byte"
            }
            Self::Disabled { .. } => {
                "set the enable bit in GICD_ISENABLER<n> or GICR_ISENABLER0; for an LPI, set bit 0 \
                 of its configuration byte"
            }
            _ => "assign the interrupt to the kernel's group in GICD_IGROUPR<n> or GICR_IGROUPR0",
        }
    }

    const fn fix_at_cpu(self) -> &'static str {
        match self {
            Self::NotPending { .. } => {
                "check that the device has signaled the interrupt since it was last acknowledged"
            }
            Self::PendingUnknown { .. } => {
                "disable direct injection, so that the model sees whether the interrupt is pending"
            }
            Self::NoEdge { .. } => {
                "make the interrupt level-sensitive, in GICD_ICFGR<n> and in firmware, or make the \
                 handler lower the line"
            }
            Self::SharedPendingTable { .. } => {
                "give each redistributor its own pending table; a VMM must restore each CPU's own \
                 GICR_PENDBASER"
            }
            Self::Active { .. } => {
                "write the INTID to ICC_EOIR1_EL1, and also to ICC_DIR_EL1 if \
                 ICC_CTLR_EL1.EOImode is 1"
            }
            Self::NoTarget { .. } => {
                "route the SPI to an existing CPU in GICD_IROUTER<n> (GICv2: GICD_ITARGETSR<n>)"
            }
            Self::OtherTarget { .. } => {
                "explain the interrupt at the target CPU, or move it to this CPU"
            }
            Self::Asleep { .. } => {
                "clear GICR_WAKER.ProcessorSleep and wait for ChildrenAsleep = 0"
            }
            Self::Offline { .. } => {
                "bring the CPU online (`cpu_on`), or move the interrupt to an online CPU"
            }
            Self::GroupDisabled { .. } => "enable the group in GICD_CTLR",
            Self::InterfaceGroupDisabled { .. } => "enable the group at the CPU interface",
            Self::PriorityMasked { .. } => {
                "raise ICC_PMR_EL1, or lower the priority value of the interrupt"
            }
            Self::PriorityNotHigher { .. } => "end the active interrupt with ICC_EOIR1_EL1",
            Self::Listed { .. } => {
                "check that the guest enables its groups, unmasks exceptions and reads ICC_IAR1_EL1"
            }
            Self::ExceptionsMasked { .. } => "clear PSTATE.I (DAIF)",
            Self::NoDescriptor { .. } => "request the interrupt, or handle it as spurious",
            Self::NotRequested => "request a handler",
            Self::DisabledByDriver => "enable the interrupt through its handle",
            Self::DisabledAsSpurious => {
                "make the handler silence its device, then enable the interrupt through its handle"
            }
            _ => "bring a CPU of its affinity set online",
        }
    }
}
