//! Sets up the guest and sends its devices' messages according to a plan. The plan is generated
//! from a seed, and is carried out in the same way on every machine.

mod plan;

pub use plan::{DevicePlan, Dice, EventPlan, ItsPlan, Levels, Plan, WiredPlan};

use crate::layout::{
    COLLECTION_TABLE, CONFIGURATION, CPUS, DEVICE_TABLE, DISTRIBUTOR, ID_BITS, INTERRUPTS, ITS,
    LEVEL_LINE, QUEUE, SECOND_LEVEL, SPECIAL, TRANSLATIONS, of_its, pending, redistributor,
};
use crate::{Failure, Machine, Operation};
use gic_arch::gits::{Baser, Cbaser, PageSize};
use gic_arch::its::{CollectionId, Command, Level1Entry, MapAction, RdBase};
use gic_arch::{Affinity, Cacheability, IntId, IntIdField, Shareability, gicd, gicr, gits};
use msi_types::{DeviceId, EventId, Level};
use std::collections::BTreeSet;
use vgic::GuestMemory as _;

/// Size of the command queue in bytes.
const QUEUE_BYTES: u64 = 0x1_0000;
/// Size of a command in bytes.
const COMMAND: u64 = 32;
/// Number of devices per second-level page.
const DEVICES_PER_PAGE: u32 = 0x1_0000 / 8;
/// `GICD_CTLR` with one security state: enables Group 1.
const GROUP_ONE: u32 = 2;
/// Cacheability attributes for the guest's tables.
const CACHED: Cacheability = Cacheability::ReadAllocateWriteBack;
/// The priority used for [`LEVEL_LINE`].
const LEVEL_PRIORITY: u8 = 0xf0;
/// A priority mask that blocks only the lowest priorities.
const UNMASKED: u64 = 0xf8;

/// The state of the guest's driver between two commands.
#[derive(Debug, Default)]
pub struct Guest {
    /// Offset of the next command, for each ITS.
    written: [u64; 2],
}

impl Guest {
    /// Sets up the guest for a plan, but doesn't send messages yet.
    pub fn boot(machine: &mut dyn Machine, plan: &Plan) -> Result<Self, Failure> {
        let mut guest = Self::default();
        write_configuration(machine, plan)?;
        machine.run(0, &distributor(plan))?;
        for cpu in 0..CPUS {
            machine.run(cpu, &redistributors(cpu, plan))?;
            machine.configure(cpu, UNMASKED, plan.binary_point)?;
        }
        for (its, its_plan) in plan.its.iter().enumerate() {
            machine.run(0, &translation_service(its, plan.levels)?)?;
            guest.command(machine, its, &its_plan.commands(its))?;
        }
        Ok(guest)
    }

    /// Makes an ITS execute commands.
    pub fn command(
        &mut self,
        machine: &mut dyn Machine,
        its: usize,
        commands: &[Command],
    ) -> Result<(), Failure> {
        let (written, base) = (&mut self.written[its], ITS[its]);
        for command in commands {
            let bytes = command.encode().map(u64::to_le_bytes);
            machine.ram().write(of_its(its, QUEUE) + *written, bytes.as_flattened())?;
            *written = (*written + COMMAND) % QUEUE_BYTES;
        }
        let offset = gits::Cwriter::at_offset(u32::try_from(*written)?);
        let post = Operation::write(base, gits::CWRITER, offset);
        let poll = Operation::read(base, gits::CREADR);
        let read = machine.run(0, &[post, poll])?;
        if read == [*written] {
            Ok(())
        } else {
            Err(format!("ITS {its} stopped at {read:x?}").into())
        }
    }
}

/// Carries out a plan. Returns, for each vCPU, the interrupt that it acknowledged.
pub fn carry_out(machine: &mut dyn Machine, plan: &Plan) -> Result<Vec<u32>, Failure> {
    play(machine, plan)?;
    (0..CPUS).map(|cpu| machine.take(cpu)).collect()
}

/// Boots the guest, sends the plan's messages and drives its lines. In between, the guest changes
/// mappings.
pub fn play(machine: &mut dyn Machine, plan: &Plan) -> Result<(), Failure> {
    let mut guest = Guest::boot(machine, plan)?;
    for (its, plan) in plan.its.iter().enumerate() {
        guest.command(machine, its, &plan.changes_before)?;
        for (device, event) in &plan.messages {
            machine.signal(its, DeviceId::new(*device), EventId::new(*event))?;
        }
        guest.command(machine, its, &plan.changes_after)?;
    }
    machine.drive(LEVEL_LINE, Level::High)?;
    let pend = |wired: &WiredPlan| field(DISTRIBUTOR, gicd::ISPENDR, wired.intid, 1);
    machine.run(0, &plan.wired.iter().filter_map(pend).collect::<Vec<_>>())?;
    for cpu in 0..CPUS {
        let pend = field(redistributor(cpu), gicr::ISPENDR, plan.private, 1);
        machine.run(cpu, pend.as_slice())?;
    }
    Ok(())
}

/// Acknowledges all interrupts on each vCPU in order. The first interrupts in the list preempt the
/// interrupt that the vCPU has already acknowledged; the remaining ones follow after that interrupt
/// has been ended.
pub fn acknowledge_all(machine: &mut dyn Machine, taken: &[u32]) -> Result<Vec<Vec<u32>>, Failure> {
    let mut acknowledged = Vec::new();
    for (cpu, intid) in (0..CPUS).zip(taken) {
        let mut intids = machine.acknowledge(cpu)?;
        if *intid < SPECIAL || *intid >= 1024 {
            machine.end(cpu, *intid)?;
        }
        intids.push(*intid);
        intids.extend(machine.acknowledge(cpu)?);
        acknowledged.push(intids);
    }
    Ok(acknowledged)
}

fn write_configuration(machine: &dyn Machine, plan: &Plan) -> Result<(), Failure> {
    for event in plan.its.iter().flat_map(|its| &its.devices).flat_map(|device| &device.events) {
        let offset = u64::from(event.intid - IntId::LPI_BASE);
        machine.ram().write(CONFIGURATION + offset, &[event.config.into_bits()])?;
    }
    for (its, its_plan) in plan.its.iter().enumerate().filter(|_| plan.levels == Levels::Two) {
        let pages: BTreeSet<_> =
            its_plan.devices.iter().map(|device| device.id / DEVICES_PER_PAGE).collect();
        for (address, page) in (of_its(its, SECOND_LEVEL)..).step_by(0x1_0000).zip(pages) {
            let entry = Level1Entry::new().with_valid(true).with_address(address);
            let place = of_its(its, DEVICE_TABLE) + u64::from(page) * 8;
            machine.ram().write_u64(place, entry.into_bits())?;
        }
    }
    Ok(())
}

fn distributor(plan: &Plan) -> Vec<Operation> {
    const LEVEL: u32 = 0;
    const EDGE: u32 = 2;
    let groups =
        (32..INTERRUPTS).step_by(32).filter_map(|intid| gicd::IGROUPR.locate(IntId::new(intid)));
    let mut operations: Vec<_> =
        groups.map(|place| Operation::write(DISTRIBUTOR, place.register(), u32::MAX)).collect();
    let mut set = |bits, intid, value| operations.extend(field(DISTRIBUTOR, bits, intid, value));
    // The reset values of triggers are IMPLEMENTATION DEFINED.
    set(gicd::ICFGR, LEVEL_LINE, LEVEL);
    set(gicd::ISENABLER, LEVEL_LINE, 1);
    set(gicd::IPRIORITYR, LEVEL_LINE, LEVEL_PRIORITY.into());
    for wired in &plan.wired {
        set(gicd::ICFGR, wired.intid, EDGE);
        set(gicd::ISENABLER, wired.intid, 1);
        set(gicd::IPRIORITYR, wired.intid, wired.priority.into());
    }
    for wired in &plan.wired {
        let target = gicd::Irouter::to(Affinity::from_packed(wired.cpu.into()));
        let route = gicd::irouter(IntId::new(wired.intid));
        operations.extend(route.map(|route| Operation::write(DISTRIBUTOR, route, target)));
    }
    operations.push(Operation::write(DISTRIBUTOR, gicd::CTLR, GROUP_ONE.into()));
    operations
}

fn redistributors(cpu: u16, plan: &Plan) -> Vec<Operation> {
    let base = redistributor(cpu);
    let tables = gicr::Propbaser::new()
        .with_id_bits_minus_one(ID_BITS - 1)
        .with_address(CONFIGURATION)
        .with_inner_cache(CACHED)
        .with_shareability(Shareability::Inner);
    let pending = gicr::Pendbaser::new()
        .with_pending_table_zero(true)
        .with_address(pending(cpu))
        .with_inner_cache(CACHED)
        .with_shareability(Shareability::Inner);
    let mut operations = vec![
        Operation::write(base, gicr::WAKER, gicr::Waker::new()),
        Operation::write(base, gicr::PROPBASER, tables),
        Operation::write(base, gicr::PENDBASER, pending),
        Operation::write(base, gicr::CTLR, gicr::Ctlr::new().with_enable_lpis(true)),
    ];
    let bits = [gicr::IGROUPR, gicr::ISENABLER];
    operations.extend(bits.into_iter().filter_map(|bits| field(base, bits, plan.private, 1)));
    operations
}

fn translation_service(its: usize, levels: Levels) -> Result<Vec<Operation>, Failure> {
    let base = ITS[its];
    let queue = Cbaser::new()
        .with_valid(true)
        .with_address(of_its(its, QUEUE))
        .with_pages_minus_one(u8::try_from(QUEUE_BYTES / 0x1000 - 1)?)
        .with_inner_cache(CACHED)
        .with_shareability(Shareability::Inner);
    let table = |address| {
        Baser::new()
            .with_page_size(PageSize::Size64K)
            .with_valid(true)
            .with_address(of_its(its, address))
            .with_inner_cache(CACHED)
            .with_shareability(Shareability::Inner)
    };
    let devices = table(DEVICE_TABLE).with_indirect(levels == Levels::Two);
    let tables = gits::BASER.iter().zip([devices, table(COLLECTION_TABLE)]);
    let mut operations = vec![Operation::write(base, gits::CBASER, queue)];
    operations.extend(tables.map(|(register, value)| Operation::write(base, register, value)));
    operations.push(Operation::write(base, gits::CTLR, gits::Ctlr::new().with_enabled(true)));
    Ok(operations)
}

/// Returns a write of an interrupt's field, which zeroes the other fields in the same register.
fn field(base: u64, field: IntIdField, intid: u32, value: u32) -> Option<Operation> {
    let place = field.locate(IntId::new(intid))?;
    Some(Operation::write(base, place.register(), place.insert(0, value)))
}

impl ItsPlan {
    /// Returns the commands that the driver sends to the ITS with this index.
    fn commands(&self, its: usize) -> Vec<Command> {
        let mut commands = Vec::new();
        for (collection, cpu) in &self.collections {
            let (collection, target) =
                (CollectionId::new(*collection), RdBase::from_processor_number(*cpu));
            commands.push(Command::Mapc { collection, target, action: MapAction::Map });
        }
        for (place, plan) in (of_its(its, TRANSLATIONS)..).step_by(0x1000).zip(&self.devices) {
            let device = DeviceId::new(plan.id);
            let event_bits_minus_one = plan.event_bits - 1;
            commands.push(Command::Mapd {
                device,
                itt: place,
                event_bits_minus_one,
                action: MapAction::Map,
            });
            commands.extend(plan.events.iter().map(|event| Command::Mapti {
                device,
                event: EventId::new(event.id),
                intid: event.intid,
                collection: CollectionId::new(event.collection),
            }));
        }
        for cpu in 0..CPUS {
            commands.push(Command::Sync { target: RdBase::from_processor_number(cpu) });
        }
        commands
    }
}
