//! Randomly drawn machines: controllers, routes, and kinds of devices.

use crate::board_trees::{self, flashed, region};
use doorbell_hardware::pci::{AddressWidth, StoreConfig};
use doorbell_hardware::platform_device::{DataWidth, PlatformDeviceConfig};
use doorbell_machine::{
    BuildOptions, ChosenDevices, ChosenFunction, FunctionPlacement, LpiDisabling, LpiNumbers,
    Population,
};
use gic_arch::IntId;
use gic_firmware::{
    Controller, ControllerIndex, ControllerKind, Description, Fact, IntIdSpan, MapEntry,
    MsiRouting, Target,
};
use msi_types::{DeviceId, Masking, RequesterId, Rewrite, Trigger};
use proptest::collection::vec;
use proptest::prelude::*;

/// The addresses of the doorbells: within 32 address bits, above them, or both if there are several
/// doorbells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Distance {
    Near,
    Far,
    Both,
}

const FAR: u64 = 0x40_0000_0000;

impl Distance {
    fn offset(self) -> u64 {
        if self == Self::Near { 0 } else { FAR }
    }
}

/// The controllers. Direct LPIs can't be combined with an ITS or message-based SPIs.
#[derive(Clone, Debug)]
pub(super) enum Kinds {
    Direct { lpis: LpiNumbers, redistributors: Distance, frames: Vec<Distance> },
    Others { itses: Vec<Distance>, mbi: Option<Mbi>, frames: Vec<Distance> },
}

/// The frame with the message registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mbi {
    Distributor,
    Alias(Distance),
}

/// Each device's controller, as an index that is reduced modulo the number of controllers.
#[derive(Clone, Debug)]
pub(super) enum DrawnRoute {
    All(usize),
    /// The first four devices of bus 0 are routed to one controller, the others to another.
    Split(usize, usize),
}

#[derive(Clone, Debug)]
pub(super) struct Drawn {
    pub(super) cpus: u8,
    pub(super) kinds: Kinds,
    hosts: Vec<DrawnRoute>,
    devices: Vec<(usize, PlatformDeviceConfig)>,
    functions: Vec<ChosenFunction>,
    disabling: LpiDisabling,
    pub(super) seed: u64,
}

impl Drawn {
    /// Returns the board as firmware describes it.
    pub(super) fn board(&self) -> Description {
        let mut board = board_trees::bare(self.cpus, 0);
        let all = |kind: ControllerKind, places: &[Distance]| -> Vec<_> {
            let places = places.iter().zip(0..);
            let one = |(place, index): (&Distance, u64)| {
                board_trees::controller(kind.clone(), index, place.offset())
            };
            places.map(one).collect()
        };
        match &self.kinds {
            Kinds::Direct { redistributors, frames, .. } => {
                self.place_redistributors(&mut board, *redistributors);
                board.controllers.extend(all(ControllerKind::DirectLpi, &[Distance::Near]));
                board.controllers.extend(all(ControllerKind::V2m, frames));
            }
            Kinds::Others { itses, mbi, frames } => {
                board.controllers.extend(all(ControllerKind::Its, itses));
                board.controllers.extend(mbi.map(mbi_controller));
                board.controllers.extend(all(ControllerKind::V2m, frames));
            }
        }
        let target = |number: usize| ControllerIndex::new(number % board.controllers.len());
        let hosts = self.hosts.iter().zip(0..);
        board.hosts = hosts
            .map(|(route, index)| board_trees::host(index, routing(route, index, target)))
            .collect();
        let devices = self.devices.iter().zip(1u32..);
        let device = |((number, _), id): (&(usize, PlatformDeviceConfig), u32)| {
            let at = 0x0b00_0000 + u64::from(id) * 0x1_0000;
            let to = target(*number);
            let asks = board.controllers[to.get()].kind == ControllerKind::Its;
            let routing = if asks {
                MsiRouting::device(to, DeviceId::new(id))
            } else {
                MsiRouting::parent(to)
            };
            board_trees::device(at, routing)
        };
        board.devices = devices.map(device).collect();
        flashed(&board)
    }

    /// Returns the options for building the drawn machine.
    pub(super) fn options(&self) -> BuildOptions {
        let devices = self.devices.iter().map(|(_, plan)| *plan).collect();
        let lpis = match self.kinds {
            Kinds::Direct { lpis, .. } => lpis,
            Kinds::Others { .. } => LpiNumbers::Short,
        };
        BuildOptions {
            population: Population::Chosen(ChosenDevices {
                functions: self.functions.clone(),
                devices,
            }),
            lpi_disabling: self.disabling,
            lpis,
            ..BuildOptions::default()
        }
    }

    /// Places the redistributors. With [`Distance::Both`], CPU 0's redistributor is at a low
    /// address.
    fn place_redistributors(&self, board: &mut Description, place: Distance) {
        let Some(gic) = &mut board.gic else { return };
        let size = u64::from(self.cpus) * 0x2_0000;
        let near = gic.redistributors[0].value.base();
        let regions = match place {
            Distance::Near => vec![region(near, size)],
            Distance::Far => vec![region(near + FAR, size)],
            Distance::Both if self.cpus == 1 => vec![region(near, size)],
            Distance::Both => vec![region(near, 0x2_0000), region(near + FAR, size - 0x2_0000)],
        };
        gic.redistributors = regions.into_iter().map(Fact::stated).collect();
    }
}

/// Returns a controller with 400 SPIs and 128 extended SPIs.
fn mbi_controller(mbi: Mbi) -> Controller {
    let alias = 0x4_0000;
    let offset = match mbi {
        Mbi::Distributor => 0,
        Mbi::Alias(place) => alias + place.offset(),
    };
    let mut controller = board_trees::controller(ControllerKind::Mbi, 0, offset);
    let extended = IntIdSpan::new(IntId::new(4096), 128).unwrap();
    controller.ranges.push(Fact::stated(extended));
    controller
}

fn routing(route: &DrawnRoute, host: u64, target: impl Fn(usize) -> ControllerIndex) -> MsiRouting {
    // Each host bridge has a separate range of DeviceIDs.
    let entry = |rid: u32, length, number| MapEntry {
        rid_base: RequesterId::new(rid),
        length,
        target: Target::Controller(target(number)),
        device_id_base: DeviceId::new((u32::try_from(host).unwrap() + 1) << 16 | rid),
    };
    match *route {
        DrawnRoute::All(number) => MsiRouting::map([entry(0, 0x1000, number)]),
        DrawnRoute::Split(first, second) => {
            MsiRouting::map([entry(0, 0x20, first), entry(0x20, 0xfe0, second)])
        }
    }
}

fn places() -> impl Strategy<Value = Distance> {
    prop_oneof![3 => Just(Distance::Near), 1 => Just(Distance::Far)]
}

fn kinds() -> impl Strategy<Value = Kinds> {
    let lpis = prop_oneof![4 => Just(LpiNumbers::Short), 1 => Just(LpiNumbers::Long)];
    let redistributors = prop_oneof![places(), Just(Distance::Both)];
    let direct = (lpis, redistributors, vec(places(), 0..=2))
        .prop_map(|(lpis, redistributors, frames)| Kinds::Direct { lpis, redistributors, frames });
    let mbi = prop_oneof![Just(Mbi::Distributor), places().prop_map(Mbi::Alias)];
    let others = (vec(places(), 0..=2), prop::option::of(mbi), vec(places(), 0..=2))
        .prop_filter("at least one controller", |(itses, mbi, frames)| {
            !itses.is_empty() || mbi.is_some() || !frames.is_empty()
        })
        .prop_map(|(itses, mbi, frames)| Kinds::Others { itses, mbi, frames });
    prop_oneof![direct, others]
}

fn stores() -> impl Strategy<Value = StoreConfig> {
    let masking = prop_oneof![Just(Masking::PerVector), Just(Masking::None)];
    let msi = (0..=4u8, widths(), masking).prop_map(|(log2_vectors, address, masking)| {
        StoreConfig::Msi { log2_vectors, address, masking }
    });
    let bars = || prop::sample::select(vec![0u8, 2, 4]);
    let msix = (1..=12u16, bars(), bars()).prop_map(|(vectors, table_bar, pba_bar)| {
        StoreConfig::Msix { vectors, table_bar, pba_bar }
    });
    prop_oneof![msi, msix]
}

fn widths() -> impl Strategy<Value = AddressWidth> {
    prop_oneof![3 => Just(AddressWidth::Bits64), 1 => Just(AddressWidth::Bits32)]
}

fn platform() -> impl Strategy<Value = PlatformDeviceConfig> {
    let data = prop_oneof![Just(DataWidth::Bits32), Just(DataWidth::Bits16)];
    let rewrites = vec![
        Rewrite::Masked,
        Rewrite::Atomic64,
        Rewrite::AddressOnly,
        Rewrite::LowWordOnly,
        Rewrite::Never,
    ];
    let trigger = prop_oneof![2 => Just(Trigger::Edge), 1 => Just(Trigger::Level)];
    (1..=8u16, widths(), data, prop::sample::select(rewrites), trigger).prop_map(
        |(slots, address, data, rewrite, trigger)| PlatformDeviceConfig {
            slots,
            address,
            data,
            rewrite,
            trigger,
        },
    )
}

fn functions() -> impl Strategy<Value = ChosenFunction> {
    let places = vec![
        FunctionPlacement::Root,
        FunctionPlacement::BesideLast,
        FunctionPlacement::Branch,
        FunctionPlacement::Conventional,
    ];
    (prop::sample::select(places), stores())
        .prop_map(|(place, store)| ChosenFunction { place, store })
}

fn routes() -> impl Strategy<Value = DrawnRoute> {
    let number = || 0..8usize;
    prop_oneof![
        number().prop_map(DrawnRoute::All),
        (number(), number()).prop_map(|(a, b)| DrawnRoute::Split(a, b))
    ]
}

/// Draws a random machine with at least one device.
pub(super) fn machines(functions_at_most: usize) -> impl Strategy<Value = Drawn> {
    let disabling = prop_oneof![Just(LpiDisabling::Possible), Just(LpiDisabling::Impossible)];
    let devices = (
        vec(routes(), 1..=2),
        vec(functions(), 0..=functions_at_most),
        vec((0..8usize, platform()), 0..=3),
    )
        .prop_filter("at least one device", |(_, functions, devices)| {
            !functions.is_empty() || !devices.is_empty()
        });
    (1..=6u8, kinds(), devices, disabling, any::<u64>()).prop_map(
        |(cpus, kinds, (hosts, functions, devices), disabling, seed)| {
            let hosts = if functions.is_empty() { Vec::new() } else { hosts };
            Drawn { cpus, kinds, hosts, devices, functions, disabling, seed }
        },
    )
}
