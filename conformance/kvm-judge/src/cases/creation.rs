//! A GIC comes into being by attributes, in right and wrong orders: KVM and the model take and
//! refuse the same steps.

use super::{Count, accept};
use gic_arch::icc;
use gic_arch::{Affinity, gicd};
use kvm_judge::Failure;
use kvm_judge::creation::{ADDRESS_BITS, Creation, Step, revise};
use kvm_judge::kvm::BareMachine;
use kvm_judge::scenario::Dice;
use vgic_kvm::abi::{Attribute, RedistributorRegion, control, frame};
use vgic_kvm::{KvmCreation, KvmDevice};

/// Random orders that are tried, and steps of each.
const ORDERS: u64 = 150;
const STEPS: u32 = 40;
/// Differences that are shown.
const SHOWN: usize = 8;

const GIC: KvmDevice = KvmDevice::Gic;
const FIRST_ITS: KvmDevice = KvmDevice::Its(0);
const SECOND_ITS: KvmDevice = KvmDevice::Its(1);
const DISTRIBUTOR: u64 = 0x0800_0000;
const ITS: u64 = 0x0808_0000;
const REDISTRIBUTORS: u64 = 0x080a_0000;
const ELSEWHERE: u64 = 0x0900_0000;
/// Of the guest's addresses.
const END: u64 = 1 << ADDRESS_BITS;
const INIT: Step = control(GIC, control::INIT);
const FOUR_CPUS: [Step; 4] = [Step::Cpu(0), Step::Cpu(1), Step::Cpu(2), Step::Cpu(3)];

pub(super) fn run(count: &mut Count) {
    for (name, steps) in orders() {
        count.case(&format!("creation: {name}"), same(&steps));
    }
    count.case("creation: which attributes there are", same(&every_attribute()));
    count.case("creation: random orders", random_orders());
}

const fn control(device: KvmDevice, command: u64) -> Step {
    Step::Set(device, Attribute::Control(command), 0)
}

const fn address(device: KvmDevice, frame: u64, address: u64) -> Step {
    Step::Set(device, Attribute::Address(frame), address)
}

const fn distributor(base: u64) -> Step {
    address(GIC, frame::DISTRIBUTOR, base)
}

const fn redistributors(base: u64) -> Step {
    address(GIC, frame::REDISTRIBUTORS, base)
}

fn region(index: u16, base: u64, count: u16) -> Step {
    let region = RedistributorRegion::new().with_index(index).with_base(base).with_count(count);
    address(GIC, frame::REDISTRIBUTOR_REGION, region.into_bits())
}

const fn interrupts(count: u64) -> Step {
    Step::Set(GIC, Attribute::InterruptCount, count)
}

const fn interface_register(cpu: u32) -> Attribute {
    Attribute::SystemRegister { cpu: Affinity::from_packed(cpu), register: icc::PMR.encoding() }
}

const READ_ALL: [Step; 7] = [
    Step::Get(GIC, Attribute::Address(frame::DISTRIBUTOR)),
    Step::Get(GIC, Attribute::Address(frame::REDISTRIBUTORS)),
    Step::Get(GIC, Attribute::Address(frame::REDISTRIBUTOR_REGION)),
    Step::Get(GIC, Attribute::InterruptCount),
    Step::Region(1),
    Step::Region(2),
    Step::Region(255),
];

/// Orders with a name, each to its end whatever is refused.
fn orders() -> Vec<(&'static str, Vec<Step>)> {
    [orders_of_steps(), orders_of_addresses(), orders_of_regions(), orders_of_registers()].concat()
}

/// Distributor, redistributors, and `INIT`.
const COMPLETE: [Step; 3] = [distributor(DISTRIBUTOR), redistributors(REDISTRIBUTORS), INIT];

fn orders_of_steps() -> Vec<(&'static str, Vec<Step>)> {
    let counts = [0, 32, 100, 993, 1024, 0x1_0000, 0x1_0000_0060, 992, 64].map(interrupts);
    let commands = |device| (0..8).map(|command| control(device, command)).collect::<Vec<_>>();
    let (gic, its) = (commands(GIC), commands(FIRST_ITS));
    vec![
        ("nothing is there", [&READ_ALL[..], &[INIT], &READ_ALL].concat()),
        (
            "INIT twice and without addresses",
            [&FOUR_CPUS[..], &[INIT, INIT], &READ_ALL, &[Step::Run]].concat(),
        ),
        ("without a distributor", [&FOUR_CPUS[..], &COMPLETE[1..], &[Step::Run]].concat()),
        ("without redistributors", [&FOUR_CPUS[..], &[COMPLETE[0], INIT, Step::Run]].concat()),
        ("without INIT", [&FOUR_CPUS[..], &COMPLETE[..2], &[Step::Run]].concat()),
        ("addresses after INIT", {
            [&FOUR_CPUS[..], &[INIT], &COMPLETE[..2], &READ_ALL, &[Step::Run]].concat()
        }),
        (
            "vCPUs after addresses",
            [&COMPLETE[..2], &FOUR_CPUS, &[INIT, Step::Cpu(4), Step::Run]].concat(),
        ),
        ("vCPUs that cannot be", {
            [&[Step::Cpu(512), Step::Cpu(7), Step::Cpu(7)][..], &COMPLETE, &[Step::Run]].concat()
        }),
        ("numbers of interrupts", [&counts[..], &READ_ALL].concat()),
        (
            "numbers of interrupts, late",
            [&FOUR_CPUS[..], &[INIT, interrupts(96)], &READ_ALL].concat(),
        ),
        (
            "commands",
            [&FOUR_CPUS[..], &gic[1..], &gic[..1], &gic[1..], &[Step::Its], &its].concat(),
        ),
    ]
}

fn orders_of_addresses() -> Vec<(&'static str, Vec<Step>)> {
    let bad = [0x1000, 0xffff, u64::MAX, u64::MAX << 16, END, END - 0x1_0000, 1 << 60];
    let bad: Vec<_> =
        bad.iter().flat_map(|base| [distributor(*base), redistributors(*base)]).collect();
    let under = [redistributors(DISTRIBUTOR - 0x2_0000), redistributors(REDISTRIBUTORS)];
    let over = [redistributors(REDISTRIBUTORS), distributor(REDISTRIBUTORS + 0x7_0000), INIT];
    let grows = [redistributors(DISTRIBUTOR - 0x4_0000), distributor(DISTRIBUTOR)];
    let run = [INIT, Step::Run];
    vec![
        ("addresses that cannot be", [&FOUR_CPUS[..], &bad, &READ_ALL].concat()),
        ("addresses twice", [&FOUR_CPUS[..], &COMPLETE[..2], &COMPLETE[..2], &READ_ALL].concat()),
        ("redistributors over the distributor", {
            [&FOUR_CPUS[..], &[distributor(DISTRIBUTOR)], &under, &READ_ALL, &run].concat()
        }),
        (
            "the distributor over redistributors",
            [&FOUR_CPUS[..], &over, &READ_ALL, &[Step::Run]].concat(),
        ),
        (
            "redistributors grow over the distributor",
            [&grows[..], &FOUR_CPUS, &READ_ALL, &run].concat(),
        ),
        ("the address of an ITS", {
            let its = |base| address(FIRST_ITS, frame::ITS, base);
            let read = Step::Get(FIRST_ITS, Attribute::Address(frame::ITS));
            let wrong = [
                read,
                address(FIRST_ITS, frame::DISTRIBUTOR, ITS),
                Step::Get(FIRST_ITS, Attribute::Address(frame::DISTRIBUTOR)),
                its(ITS + 0x1000),
                its(u64::MAX << 16),
                its(END - 0x1_0000),
                its(END),
            ];
            let right = [its(ITS), read, its(ITS), control(FIRST_ITS, control::INIT), Step::Its];
            let second = [address(SECOND_ITS, frame::ITS, 0x0900_0000), Step::Run];
            [&[Step::Its][..], &wrong, &right, &FOUR_CPUS, &COMPLETE, &second].concat()
        }),
    ]
}

fn orders_of_regions() -> Vec<(&'static str, Vec<Step>)> {
    let here = distributor(DISTRIBUTOR);
    let two = [here, region(0, REDISTRIBUTORS, 3), region(1, ELSEWHERE, 5)];
    let few = [here, region(0, REDISTRIBUTORS, 2), region(1, ELSEWHERE, 1)];
    let unused = [here, region(0, REDISTRIBUTORS, 4), region(1, DISTRIBUTOR, 4)];
    let mixed =
        [redistributors(REDISTRIBUTORS), region(0, ELSEWHERE, 4), region(1, ELSEWHERE, 4), here];
    let bad = [
        here,
        region(1, REDISTRIBUTORS, 1),
        region(0, REDISTRIBUTORS, 0),
        address(GIC, frame::REDISTRIBUTOR_REGION, 0x0010_0000_080a_f000),
        region(0, END, 1),
        region(0, END - 0x2_0000, 2),
        region(0, REDISTRIBUTORS, 2),
        region(0, ELSEWHERE, 2),
        region(2, ELSEWHERE, 2),
        region(1, REDISTRIBUTORS + 0x3_0000, 2),
        region(1, DISTRIBUTOR, 4),
        region(257, ELSEWHERE, 2),
    ];
    let run = [INIT, Step::Run];
    vec![
        ("regions", [&FOUR_CPUS[..], &two, &READ_ALL, &run].concat()),
        ("regions that are too few", [&FOUR_CPUS[..], &few, &READ_ALL, &run].concat()),
        ("regions that come one after the other", {
            [&few[..], &FOUR_CPUS, &[region(2, 0x0a00_0000, 1)], &READ_ALL, &run].concat()
        }),
        ("regions that cannot be", [&FOUR_CPUS[..], &bad, &READ_ALL, &run].concat()),
        (
            "a region over the distributor that no vCPU needs",
            [&FOUR_CPUS[..], &unused, &READ_ALL, &run].concat(),
        ),
        ("one region, then several", [&FOUR_CPUS[..], &mixed, &READ_ALL, &run].concat()),
        (
            "several regions, then one",
            [&FOUR_CPUS[..], &two, &[redistributors(0x0a00_0000)], &READ_ALL].concat(),
        ),
    ]
}

fn orders_of_registers() -> Vec<(&'static str, Vec<Step>)> {
    let cpu = Affinity::from_packed;
    let registers = [
        Attribute::Distributor { offset: 0 },
        Attribute::Redistributor { cpu: cpu(1), offset: 0 },
        Attribute::Redistributor { cpu: cpu(9), offset: 0 },
        interface_register(1),
        interface_register(9),
        Attribute::Levels { cpu: cpu(1), info: 0, first: 0 },
        Attribute::Levels { cpu: cpu(1), info: 1, first: 1 },
        Attribute::Levels { cpu: cpu(9), info: 0, first: 0 },
        Attribute::Its { offset: 0 },
    ];
    let early =
        registers.into_iter().flat_map(|which| [Step::Get(GIC, which), Step::Set(GIC, which, 0)]);
    let early: Vec<_> = early.collect();
    let of_its =
        [0, 2, 4, 0x10, 0x84, 0x100, 0xffe8, 0x1_0000].map(|offset| Attribute::Its { offset });
    let of_its = of_its.into_iter().chain([Attribute::InterruptCount, registers[0]]);
    let of_its =
        of_its.flat_map(|which| [Step::Get(FIRST_ITS, which), Step::Set(FIRST_ITS, which, 0)]);
    let (first, second) = (gicd::IIDR.offset(), gicd::TYPER2.offset());
    let read = Step::Get(GIC, Attribute::Distributor { offset: first });
    let written: Vec<_> =
        [0, 1, 4, 3, 2].into_iter().flat_map(|revision| [revise(revision), read]).collect();
    let other = Step::Set(GIC, Attribute::Distributor { offset: first }, 0x4c00_343b);
    let second = Attribute::Distributor { offset: second };
    let fixed =
        [other, read, Step::Get(GIC, second), Step::Set(GIC, second, 0), Step::Set(GIC, second, 1)];
    vec![
        ("registers before INIT", [&early[..], &FOUR_CPUS, &early].concat()),
        ("registers of an ITS without an address", {
            [&[Step::Its][..], &FOUR_CPUS, &of_its.collect::<Vec<_>>()].concat()
        }),
        ("revisions", [&FOUR_CPUS[..], &COMPLETE, &[read], &written, &fixed].concat()),
    ]
}

/// Every attribute is asked for, before and after the interrupts' number is known.
fn every_attribute() -> Vec<Step> {
    let cpu = |number| Affinity::from_packed(number);
    let mut gic: Vec<_> = (0..8)
        .flat_map(|number| [Attribute::Address(number), Attribute::Control(number)])
        .collect();
    gic.push(Attribute::InterruptCount);
    for offset in (0..0x1000)
        .step_by(2)
        .chain((0x5ff0..0x8010).step_by(4))
        .chain((0xffc0..0x1_0010).step_by(4))
    {
        gic.push(Attribute::Distributor { offset });
    }
    for offset in (0..0x100).chain((0xffc0..0x1_1000).step_by(2)).chain([0x2_0000]) {
        gic.push(Attribute::Redistributor { cpu: cpu(1), offset });
    }
    gic.push(Attribute::Redistributor { cpu: cpu(9), offset: 0 });
    for encoding in 0..=u16::MAX {
        let register = icc::SysRegEncoding::from_packed(encoding);
        // Of op0 = 3, op1 = 0 alone: newer kernels have registers of hypervisors among the others.
        if encoding >> 11 == 0b11_000 {
            gic.push(Attribute::SystemRegister { cpu: cpu(0), register });
        }
    }
    for info in 0..2 {
        gic.extend([0, 1, 32].map(|first| Attribute::Levels { cpu: cpu(9), info, first }));
    }
    gic.push(Attribute::Its { offset: 0 });
    let gic: Vec<_> = gic.into_iter().map(|attribute| Step::Has(GIC, attribute)).collect();
    let its = (0..8).flat_map(|number| [Attribute::Address(number), Attribute::Control(number)]);
    let registers = (0..0x200).chain(0xffc0..0x1_0010).map(|offset| Attribute::Its { offset });
    let its = its.chain(registers).chain([Attribute::InterruptCount, interface_register(0)]);
    let its: Vec<_> = its.map(|attribute| Step::Has(FIRST_ITS, attribute)).collect();
    [&FOUR_CPUS[..], &gic, &[interrupts(160)], &gic, &[Step::Its], &its].concat()
}

/// Takes the steps on both.
fn same(steps: &[Step]) -> Result<(), Failure> {
    let mut kvm = BareMachine::new()?;
    let mut model = KvmCreation::new(ADDRESS_BITS);
    let mut differences = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let (theirs, ours) = (kvm.take(*step), model.take(*step));
        let (Some(theirs), Some(ours)) = (theirs, ours) else { break };
        if theirs != ours {
            differences
                .push(format!("step {number}, {step:x?}: KVM {theirs:x?}, Doorbell {ours:x?}"));
        }
        // The machine runs, or is dead.
        if *step == Step::Run {
            break;
        }
    }
    let count = differences.len();
    differences.truncate(SHOWN);
    accept(count == 0, || format!("{count} differ: {}", differences.join("; ")))
}

fn random_orders() -> Result<(), Failure> {
    let mut differences = Vec::new();
    for seed in 0..ORDERS {
        let steps = random_order(seed);
        differences.extend(same(&steps).err().map(|error| format!("order {seed}: {error}")));
    }
    let count = differences.len();
    differences.truncate(3);
    accept(count == 0, || format!("{count} orders differ: {}", differences.join("; ")))
}

fn random_order(seed: u64) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let (mut cpus, mut its) = (0, 0);
    let mut initialised = false;
    let mut steps: Vec<_> = (0..STEPS)
        .map(|_| {
            let step = match dice.below(16) {
                0 | 1 => Step::Cpu(cpus),
                2 => Step::Cpu(u16::try_from(dice.below(600)).unwrap_or(0)),
                3 if its < 3 => Step::Its,
                3 | 4 => address(
                    KvmDevice::Its(dice.below(3) as usize),
                    frame::ITS,
                    any_address(&mut dice),
                ),
                5 => distributor(any_address(&mut dice)),
                6 => redistributors(any_address(&mut dice)),
                7..=9 => {
                    let index = [0, 0, 1, 1, 2, 2, 3, 256][dice.below(8) as usize];
                    let count = [0, 1, 1, 2, 3, 4, 8, 0xfff][dice.below(8) as usize];
                    region(index, any_address(&mut dice), count)
                }
                10 => interrupts([0, 32, 64, 96, 100, 256, 992, 1024][dice.below(8) as usize]),
                11 if dice.one_in(4) => INIT,
                12 if initialised => revise(u64::from(dice.below(5))),
                14 => Step::Region(u8::try_from(dice.below(4)).unwrap_or(0)),
                15 => control(KvmDevice::Its(dice.below(3) as usize), u64::from(dice.below(6))),
                _ => READ_ALL[dice.below(7) as usize],
            };
            cpus += u16::from(matches!(step, Step::Cpu(number) if number == cpus));
            its += u32::from(step == Step::Its);
            initialised |= step == INIT;
            step
        })
        .collect();
    steps.push(Step::Run);
    steps
}

/// One of a few places that touch and overlap, seldom one that cannot be.
fn any_address(dice: &mut Dice) -> u64 {
    match dice.below(8) {
        0 => [0x1000, END, u64::MAX << 16, u64::MAX, END - 0x1_0000][dice.below(5) as usize],
        _ => DISTRIBUTOR + u64::from(dice.below(12)) * 0x1_0000,
    }
}
