//! The families of cases. A case is a list of steps, which proptest generates and shrinks.

use super::access::Width;
use super::address_map::{
    CPUS, CREADR, CWRITER, GICD, ICFGR, IPRIORITYR, IROUTER, ITS, NAMED_EVENTS, SGI_FRAME, SPARE,
    WAKER, intid, named_events, redistributor,
};
use super::command::Command;
use super::family::Family;
use super::step::{Rewritten, Start, Step};
use super::world::World;
use proptest::prelude::*;
use proptest::sample::select;

impl Family {
    /// Returns the cases in the family.
    pub(super) fn cases(self, world: World) -> BoxedStrategy<Vec<Step>> {
        let wired = move || wired_step().prop_map(move |step| in_world(step, world));
        match self {
            Self::Wired => prop::collection::vec(wired(), 1..60).boxed(),
            Self::LpiRegisters => prop::collection::vec(lpi_register_step(), 1..40).boxed(),
            Self::Commands => {
                (start(), prop::collection::vec(command_step(), 1..60)).prop_map(begin).boxed()
            }
            Self::Delivery => (start(), prop::collection::vec(delivery_step(wired()), 1..60))
                .prop_map(deliver)
                .boxed(),
        }
    }
}

fn wired_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => access(4).prop_map(|(at, width)| Step::Load { at, width }),
        5 => (access(8), value()).prop_map(|((at, width), value)| Step::Store { at, width, value }),
        3 => (input(), 0..2u8).prop_map(|(input, level)| Step::Line { input, level }),
    ]
}

/// Generates an access with the register's own width or, with a weight of 1 to `usual`, with a
/// smaller width.
fn access(usual: u32) -> impl Strategy<Value = (u64, Width)> {
    let smaller = select(vec![Width::Byte, Width::Word]).prop_map(Some);
    (wired_register(), prop_oneof![usual => Just(None), 1 => smaller])
        .prop_map(|((at, own), other)| {
            (at, other.filter(|width| at % u64::from(width.bytes()) == 0).unwrap_or(own))
        })
        .prop_map(|(at, width)| {
            // A misaligned word access would be split into 16-bit accesses. The effect of 16-bit
            // accesses on priorities isn't specified.
            let split = !at.is_multiple_of(width.bytes().into()) && is_in(at, IPRIORITYR, 0x400);
            (if split { at & !3 } else { at }, width)
        })
}

/// Generates the INTIDs of SPIs, and of PPIs on each CPU.
fn input() -> impl Strategy<Value = u16> {
    prop_oneof![
        0..40u16,
        0..256u16,
        (0..CPUS, 16..32u16).prop_map(|(cpu, ppi)| 256 + 32 * cpu + ppi)
    ]
}

fn any_width() -> impl Strategy<Value = Width> {
    select(vec![Width::Byte, Width::Half, Width::Word, Width::Double])
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        Just(u64::MAX),
        Just(0),
        (0..64u32).prop_map(|bit| 1 << bit),
        0..256u64
    ]
}

/// Generates a register together with its own width.
fn wired_register() -> impl Strategy<Value = (u64, Width)> {
    let bits = select(vec![0x080u64, 0x100, 0x180, 0x200, 0x280, 0x300, 0x380]);
    let shared = prop_oneof![
        6 => (bits.clone(), 0..10u64).prop_map(|(array, index)| (array + 4 * index, Width::Word)),
        2 => (0..72u64).prop_map(|index| (0x400 + 4 * index, Width::Word)),
        1 => (0..288u64).prop_map(|index| (0x400 + index, Width::Byte)),
        2 => (0..19u64).prop_map(|index| (0xC00 + 4 * index, Width::Word)),
        2 => (0..290u64).prop_map(|index| (0x6000 + 8 * index, Width::Double)),
        1 => (0..580u64).prop_map(|index| (0x6000 + 4 * index, Width::Word)),
        2 => Just((0, Width::Word)),
        // Doorbells, SGI registers for systems without affinity routing, and registers of the
        // extended ranges. Neither machine has any of these registers.
        2 => reserved().prop_map(|offset| (offset, Width::Word)),
        1 => (0..0x4000u64).prop_map(|index| (4 * index, Width::Word)),
        1 => (0x800..0x1_0000u64).prop_map(|offset| (offset, Width::Word)),
    ]
    .prop_map(|(offset, width)| (GICD + offset, width));
    let private = prop_oneof![
        6 => (bits, 0..3u64)
            .prop_map(|(array, index)| (SGI_FRAME + array + 4 * index, Width::Word)),
        2 => (0..9u64).prop_map(|index| (SGI_FRAME + 0x400 + 4 * index, Width::Word)),
        1 => (0..33u64).prop_map(|index| (SGI_FRAME + 0x400 + index, Width::Byte)),
        2 => (0..3u64).prop_map(|index| (SGI_FRAME + 0xC00 + 4 * index, Width::Word)),
        1 => Just((0x14, Width::Word)),
        1 => (0..0x4000u64).prop_map(|index| (SGI_FRAME + 4 * index, Width::Word)),
        1 => (0x100..0x4000u64).prop_map(|index| (4 * index, Width::Word)),
        1 => (0x100..0x2_0000u64).prop_map(|offset| (offset, Width::Word)),
    ];
    // The offsets include those of a redistributor that doesn't exist.
    let cpu = prop_oneof![12 => 0..CPUS, 1 => Just(CPUS)];
    let private =
        (cpu, private).prop_map(|(cpu, (offset, width))| (redistributor(cpu) + offset, width));
    prop_oneof![shared, private]
}

/// Generates distributor offsets at which only other implementations have registers.
fn reserved() -> impl Strategy<Value = u64> {
    let doorbells = select(vec![0x40u64, 0x48, 0x50, 0x58]);
    prop_oneof![doorbells, 0xF00..0xF30u64, 0x1000..0x3500u64, 0x8000..0xA000u64]
        .prop_map(|offset| offset & !3)
}

fn lpi_register_step() -> impl Strategy<Value = Step> {
    let offset = prop_oneof![
        4 => select(vec![
            0u64, 0x80, 0x84, 0x88, 0x8c, 0x90, 0x94, 0x100, 0x104, 0x108, 0x10c, 0x110, 0x138,
        ]),
        1 => (0..0x40u64).prop_map(|index| 4 * index),
        1 => (0..0x4000u64).prop_map(|index| 4 * index),
    ];
    let its = (offset, any::<bool>()).prop_map(|(offset, double)| {
        let double = double && holds_double_word(offset);
        (ITS + offset, if double { Width::Double } else { Width::Word })
    });
    let private = (0..CPUS, select(vec![0u64, 0x14, 0x40, 0x48, 0xa0, 0xb0, 0xc0]))
        .prop_map(|(cpu, offset)| (redistributor(cpu) + offset, Width::Word));
    let register = prop_oneof![2 => its, 1 => private];
    prop_oneof![
        1 => register.clone().prop_map(|(at, width)| Step::Load { at, width }),
        1 => (0..CPUS, select(vec![0x70u64, 0x74, 0x78, 0x7c]), lpi_value())
            .prop_map(|(cpu, offset, value)| Step::Tables { cpu, offset, value }),
        2 => (register, lpi_value()).prop_map(|((at, width), value)| match at & !7 {
            WRITABLE_ON_QEMU => Step::Load { at, width },
            CWRITER_AT => Step::Store { at, width, value: value & !BEYOND_A_PAGE },
            _ => Step::Store { at, width, value: in_memory(at, width, value) },
        }),
    ]
}

/// Adjusts a write to one half of a register that holds an address, so that the address is in
/// memory whatever the other half contains.
fn in_memory(at: u64, width: Width, value: u64) -> u64 {
    let holds_address = holds_double_word((at & !7) - ITS) && at & !7 != ITS + 8;
    match (holds_address, width, at % 8) {
        (true, Width::Word, 0) if !SPARE.contains(&(value & 0xffff_f000)) => value | SPARE.start,
        (true, Width::Word, 4) => value & !0xf_ffff,
        _ => value,
    }
}

/// Returns `true` if the ITS has a 64-bit register at this offset.
fn holds_double_word(offset: u64) -> bool {
    offset.is_multiple_of(8) && matches!(offset, 0x08 | 0x80..0x98 | 0x100..0x140)
}

const CWRITER_AT: u64 = ITS + CWRITER;
/// `GITS_CREADR` is read-only, but QEMU accepts writes.
const WRITABLE_ON_QEMU: u64 = ITS + CREADR;
/// Bits in `GITS_CWRITER.Offset` that point beyond the end of the smallest queue.
const BEYOND_A_PAGE: u64 = 0xf_f000;

/// Generates values whose address field points to memory that stays zero.
fn lpi_value() -> impl Strategy<Value = u64> {
    let address = (SPARE.start >> 12..SPARE.end >> 12).prop_map(|page| page << 12);
    prop_oneof![
        3 => (address, any::<u64>())
            .prop_map(|(address, other)| other & !0x000f_ffff_ffff_f000 | address),
        1 => Just(0),
        1 => Just(1),
    ]
}

fn start() -> impl Strategy<Value = Start> {
    let id_bits = prop_oneof![6 => Just(13u8), 2 => 0..32u8];
    (id_bits, prop_oneof![4 => Just(7u8), 1 => 0..8u8], any::<[bool; 2]>())
        .prop_map(|(id_bits, enabled, two_level)| Start { id_bits, enabled, two_level })
}

/// Adds setup commands so that most steps refer to existing mappings.
fn begin((start, steps): (Start, Vec<Step>)) -> Vec<Step> {
    let mut all = vec![Step::Start(start)];
    all.extend((0..CPUS).map(|cpu| Step::Command(Command::Mapc { collection: cpu, target: cpu })));
    all.extend(
        [(0, 4), (1, 4), (2, 13)]
            .map(|(device, size)| Step::Command(Command::Mapd { device, size })),
    );
    all.extend(steps.into_iter().filter(|step| start.enabled == 7 || !moves(step)));
    all
}

/// Returns `true` if the step could move an LPI to a redistributor whose LPIs are disabled. The
/// effect of such a move is undefined.
fn moves(step: &Step) -> bool {
    let (Step::Command(command) | Step::Reserved { command, .. }) = step else { return false };
    matches!(command, Command::Movi { .. } | Command::Movall { .. })
}

/// Adds the steps that enable interrupt delivery and set up the tables.
fn deliver((start, steps): (Start, Vec<Step>)) -> Vec<Step> {
    let mut all = vec![Step::Deliver { lpis: 0x400 }];
    all.extend(begin((start, steps)));
    all
}

fn delivery_step(wired: impl Strategy<Value = Step>) -> impl Strategy<Value = Step> {
    let route = (0..10u64, 0..CPUS).prop_map(|(spi, cpu)| Step::Store {
        at: GICD + IROUTER + 8 * (32 + spi),
        width: Width::Double,
        value: cpu.into(),
    });
    prop_oneof![
        4 => wired.prop_map(without_open_inputs),
        1 => route,
        3 => (0..10u16, 0..2u8).prop_map(|(input, level)| Step::Line { input, level }),
        1 => configure(),
        4 => command_step(),
        1 => (0..CPUS).prop_map(|cpu| Step::Acknowledge { cpu }),
    ]
}

/// Restricts a step to the accesses that the world allows. QEMU's distributor stores more priority
/// bits than its CPU interfaces implement, and Non-secure software sees one bit less than Secure
/// software. In addition, Non-secure software must not put redistributors to sleep.
fn in_world(step: Step, world: World) -> Step {
    let kept = match world {
        World::Stopped => u64::MAX,
        World::Running => 0xf8f8_f8f8_f8f8_f8f8,
        World::NonSecure => 0xf0f0_f0f0_f0f0_f0f0,
    };
    match step {
        Step::Store { at, width, value } if is_in(at, IPRIORITYR, 0x400) => {
            Step::Store { at, width, value: value & kept }
        }
        Step::Store { at, width, .. } if world == World::NonSecure && is_waker(at) => {
            Step::Load { at, width }
        }
        other => other,
    }
}

/// Replaces writes whose effect is undefined, which are changing the trigger of an enabled
/// interrupt, and putting a redistributor to sleep while its CPU is awake.
fn without_open_inputs(step: Step) -> Step {
    match step {
        Step::Store { at, width, .. } if is_in(at, ICFGR, 0x100) || is_waker(at) => {
            Step::Load { at, width }
        }
        other => other,
    }
}

fn is_waker(at: u64) -> bool {
    (0..CPUS).any(|cpu| at & !3 == redistributor(cpu) + WAKER)
}

/// Returns `true` if an access at `at` touches one of the register arrays of the distributor or a
/// redistributor.
fn is_in(at: u64, array: u64, bytes: u64) -> bool {
    let private = (0..CPUS).map(|cpu| redistributor(cpu) + SGI_FRAME);
    let mut frames = std::iter::once(GICD).chain(private);
    frames.any(|frame| (frame + array - 7..frame + array + bytes).contains(&at))
}

fn command_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => command().prop_map(Step::Command),
        1 => (command(), any::<u32>()).prop_map(|(command, ones)| Step::Reserved { command, ones }),
        1 => any::<u8>().prop_map(|commands| Step::Nothing { commands }),
        1 => (rewritten(), lpi_value())
            .prop_map(|(register, value)| Step::Rewrite { register, value }),
        3 => configure(),
        3 => (
            prop_oneof![6 => event(), 1 => NAMED_EVENTS..NAMED_EVENTS + 3],
            prop_oneof![3 => Just(Width::Word), 1 => any_width()],
        )
            .prop_map(|(event, width)| Step::Message { event, width }),
        2 => (0..CPUS).prop_map(|cpu| Step::Pending { cpu }),
        1 => (0..CPUS, 0..0x40u16, any::<u8>())
            .prop_map(|(cpu, offset, byte)| Step::Preset { cpu, offset, byte }),
        1 => any::<bool>().prop_map(|its| Step::Enable { its }),
        1 => (1..3u8).prop_map(|pages| Step::Requeue { pages }),
        1 => (any::<u8>(), any::<bool>())
            .prop_map(|(beyond, retry)| Step::Overrun { beyond, retry }),
    ]
}

/// Generates steps that write configuration bytes, mostly for LPIs that cases have mapped.
fn configure() -> impl Strategy<Value = Step> {
    let mapped = (0..3u16, 0..6u16).prop_map(|(device, event)| 64 * device + event);
    (prop_oneof![3 => mapped, 1 => 0..0x200u16], any::<u8>())
        .prop_map(|(offset, byte)| Step::Configure { offset, byte })
}

fn rewritten() -> impl Strategy<Value = Rewritten> {
    select(vec![Rewritten::Devices, Rewritten::Collections, Rewritten::Queue])
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => (
            device(),
            prop_oneof![
                12 => 1..6u8,
                2 => Just(13u8),
                2 => select(vec![0u8, 6, 16, 31]),
                1 => 0..32u8,
            ],
        )
            .prop_map(|(device, size)| Command::Mapd { device, size }),
        1 => device().prop_map(|device| Command::Unmapd { device }),
        2 => (collection(), target())
            .prop_map(|(collection, target)| Command::Mapc { collection, target }),
        1 => collection().prop_map(|collection| Command::Unmapc { collection }),
        8 => (event_of(), no_lpi(), collection()).prop_map(
            |((device, event), out_of_range, collection)| Command::Mapti {
                device,
                event,
                intid: out_of_range.unwrap_or(intid(device, event)),
                collection,
            },
        ),
        2 => (named_event_of(), collection())
            .prop_map(|((device, event), collection)| Command::Mapi { device, event, collection }),
        3 => (event_of(), collection())
            .prop_map(|((device, event), collection)| Command::Movi { device, event, collection }),
        2 => event_of().prop_map(|(device, event)| Command::Discard { device, event }),
        8 => event_of().prop_map(|(device, event)| Command::Int { device, event }),
        2 => event_of().prop_map(|(device, event)| Command::Clear { device, event }),
        2 => event_of().prop_map(|(device, event)| Command::Inv { device, event }),
        1 => collection().prop_map(|collection| Command::Invall { collection }),
        2 => (target(), target()).prop_map(|(from, to)| Command::Movall { from, to }),
        1 => target().prop_map(|target| Command::Sync { target }),
        1 => (unknown_opcode(), any::<[u64; 4]>()).prop_map(|(opcode, mut words)| {
            words[0] = words[0] & !0xff | u64::from(opcode);
            Command::Unknown { words }
        }),
    ]
}

fn device() -> impl Strategy<Value = u32> {
    prop_oneof![12 => 0..3u32, 1 => select(vec![511u32, 512, 513, 0xffff, 0x1_0000, u32::MAX])]
}

fn event_of() -> impl Strategy<Value = (u32, u32)> {
    prop_oneof![8 => (device(), event()), 1 => named_event_of()]
}

/// Generates an event that MAPI can map.
fn named_event_of() -> impl Strategy<Value = (u32, u32)> {
    (prop_oneof![2 => Just(2), 1 => device()], 0..3u32)
        .prop_map(|(device, event)| (device, named_events(device) + event))
}

fn event() -> impl Strategy<Value = u32> {
    prop_oneof![12 => 0..6u32, 1 => select(vec![31u32, 32, 63, 64, 0xffff, 0x1_0000, u32::MAX])]
}

fn collection() -> impl Strategy<Value = u16> {
    prop_oneof![10 => 0..CPUS, 1 => select(vec![CPUS, 511, 512, u16::MAX])]
}

fn target() -> impl Strategy<Value = u16> {
    prop_oneof![10 => 0..CPUS, 1 => select(vec![CPUS, 256, u16::MAX])]
}

/// Generates an out-of-range INTID, or `None` to use the event's own INTID.
fn no_lpi() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![
        12 => Just(None),
        1 => select(vec![0u32, 31, 1022, 8191, 0x1_0000, u32::MAX]).prop_map(Some),
    ]
}

fn unknown_opcode() -> impl Strategy<Value = u8> {
    const KNOWN: [u8; 12] = [1, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];
    any::<u8>().prop_filter("a physical command", |opcode| !KNOWN.contains(opcode))
}
