//! Sets up the guest and sends its devices' messages according to a plan. The plan is generated
//! from a seed, and is carried out in the same way on every machine.

mod plan;

pub use plan::{DevicePlan, Dice, EventPlan, ItsPlan, Levels, Plan};

use crate::layout::{
    COLLECTION_TABLE, CONFIGURATION, CPUS, DEVICE_TABLE, DISTRIBUTOR, ID_BITS, INTERRUPTS, ITS,
    LEVEL_LINE, QUEUE, SECOND_LEVEL, SPECIAL, TRANSLATIONS, of_its, pending, redistributor,
};
use crate::{Failure, Machine, Operation};
use gic_arch::gits::{Baser, Cbaser, PageSize};
use gic_arch::its::{CollectionId, Command, Level1Entry, MapAction, RdBase};
use gic_arch::{Affinity, Cacheability, IntId, IntIdField, Shareability, gicd, gicr, gits, lpi};
use msi_types::{DeviceId, EventId, Level};
use std::collections::{BTreeMap, BTreeSet};

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
            let bytes: Vec<u8> = command.encode().into_iter().flat_map(u64::to_le_bytes).collect();
            machine.ram().write(of_its(its, QUEUE) + *written, &bytes)?;
            *written = (*written + COMMAND) % QUEUE_BYTES;
        }
        let register = |offset: u32| base + u64::from(offset);
        let post = Operation::Write64(register(gits::CWRITER.offset()), *written);
        let poll = Operation::Read64(register(gits::CREADR.offset()));
        let read = machine.run(0, &[post, poll])?;
        if read == [*written] {
            Ok(())
        } else {
            Err(format!("ITS {its} stopped at {read:x?}").into())
        }
    }
}

/// Sends the plan's messages and drives its lines. In between, the guest acknowledges some
/// interrupts and changes mappings.
pub fn fire(machine: &mut dyn Machine, guest: &mut Guest, plan: &Plan) -> Result<(), Failure> {
    for (its, plan) in plan.its.iter().enumerate() {
        guest.command(machine, its, &plan.changes_before)?;
        for (device, event) in &plan.messages {
            machine.signal(its, DeviceId::new(*device), EventId::new(*event))?;
        }
        guest.command(machine, its, &plan.changes_after)?;
    }
    machine.drive(LEVEL_LINE, Level::High)?;
    let pending =
        plan.wired.iter().map(|wired| bit(gicd::ISPENDR, wired.intid)).collect::<Vec<_>>();
    machine.run(0, &pending)?;
    for cpu in 0..CPUS {
        let set = gicr::ISPENDR.locate(IntId::new(plan.private)).map(|place| {
            Operation::Write32(
                redistributor(cpu) + u64::from(place.register().offset()),
                place.mask(),
            )
        });
        machine.run(cpu, set.as_slice())?;
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
            machine.ram().write(place, &entry.into_bits().to_le_bytes())?;
        }
    }
    Ok(())
}

fn distributor(plan: &Plan) -> Vec<Operation> {
    let mut operations = all_in_group_one();
    operations.extend(triggers(plan));
    for wired in &plan.wired {
        operations.push(bit(gicd::ISENABLER, wired.intid));
        operations.extend(priority(wired.intid, wired.priority));
        let route = gicd::irouter(IntId::new(wired.intid));
        let target = Affinity::from_packed(wired.cpu.into()).mpidr();
        operations.extend(
            route.map(|route| Operation::Write64(DISTRIBUTOR + u64::from(route.offset()), target)),
        );
    }
    operations.push(bit(gicd::ISENABLER, LEVEL_LINE));
    operations.extend(priority(LEVEL_LINE, LEVEL_PRIORITY));
    operations.push(Operation::Write32(DISTRIBUTOR + u64::from(gicd::CTLR.offset()), GROUP_ONE));
    operations
}

/// Makes the SPIs except [`LEVEL_LINE`] edge-triggered, because the reset values of their triggers
/// are IMPLEMENTATION DEFINED.
fn triggers(plan: &Plan) -> Vec<Operation> {
    const LEVEL: u32 = 0;
    const EDGE: u32 = 2;
    let edges = plan.wired.iter().map(|wired| (wired.intid, EDGE));
    let mut registers = BTreeMap::new();
    for (intid, trigger) in edges.chain([(LEVEL_LINE, LEVEL)]) {
        if let Some(place) = gicd::ICFGR.locate(IntId::new(intid)) {
            let value = registers.entry(place.register().offset()).or_insert(0);
            *value = place.insert(*value, trigger);
        }
    }
    registers
        .into_iter()
        .map(|(offset, value)| Operation::Write32(DISTRIBUTOR + u64::from(offset), value))
        .collect()
}

fn redistributors(cpu: u16, plan: &Plan) -> Vec<Operation> {
    let at = |offset: u32| redistributor(cpu) + u64::from(offset);
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
        Operation::Write32(at(gicr::WAKER.offset()), 0),
        Operation::Write64(at(gicr::PROPBASER.offset()), tables.into_bits()),
        Operation::Write64(at(gicr::PENDBASER.offset()), pending.into_bits()),
        Operation::Write32(
            at(gicr::CTLR.offset()),
            gicr::Ctlr::new().with_enable_lpis(true).into_bits(),
        ),
    ];
    for field in [gicr::IGROUPR, gicr::ISENABLER] {
        let place = field.locate(IntId::new(plan.private));
        operations.extend(
            place.map(|place| Operation::Write32(at(place.register().offset()), place.mask())),
        );
    }
    operations
}

fn translation_service(its: usize, levels: Levels) -> Result<Vec<Operation>, Failure> {
    let at = |offset: u32| ITS[its] + u64::from(offset);
    let pages = QUEUE_BYTES / 0x1000;
    let queue = Cbaser::new()
        .with_valid(true)
        .with_address(of_its(its, QUEUE))
        .with_pages_minus_one(u8::try_from(pages - 1)?)
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
    let mut operations = vec![Operation::Write64(at(gits::CBASER.offset()), queue.into_bits())];
    let tables = gits::BASER.iter().zip([devices, table(COLLECTION_TABLE)]);
    operations.extend(
        tables
            .map(|(register, value)| Operation::Write64(at(register.offset()), value.into_bits())),
    );
    let enable = gits::Ctlr::new().with_enabled(true).into_bits();
    operations.push(Operation::Write32(at(gits::CTLR.offset()), enable));
    Ok(operations)
}

fn all_in_group_one() -> Vec<Operation> {
    let places =
        (32..INTERRUPTS).step_by(32).filter_map(|intid| gicd::IGROUPR.locate(IntId::new(intid)));
    let addresses = places.map(|place| DISTRIBUTOR + u64::from(place.register().offset()));
    addresses.map(|address| Operation::Write32(address, u32::MAX)).collect()
}

/// Returns a store that sets an SPI's priority, and zeroes the other priorities in the same
/// register.
fn priority(intid: u32, priority: u8) -> Option<Operation> {
    let place = gicd::IPRIORITYR.locate(IntId::new(intid))?;
    let offset = u64::from(place.register().offset());
    Some(Operation::Write32(DISTRIBUTOR + offset, place.insert(0, priority.into())))
}

/// Returns a store that sets an interrupt's bit in a distributor register by writing a one.
fn bit(field: IntIdField, intid: u32) -> Operation {
    let place = field.locate(IntId::new(intid));
    let (offset, mask) = place.map_or((0, 0), |place| (place.register().offset(), place.mask()));
    Operation::Write32(DISTRIBUTOR + u64::from(offset), mask)
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

/// Size of the configuration table in bytes.
pub const CONFIGURATION_BYTES: u64 = lpi::config_table_bytes(ID_BITS);
