//! Machine descriptions that each test one property.

use crate::board_trees::{self, flashed, flashed_with_findings, its, region};
use crate::{assert_delivered, deliver, deliver_with, harbour};
use doorbell_machine::{BuildOptions, DeviceKind, SecurityView, TargetAddresses};
use gic_firmware::{Fact, Gic, MsiRouting};
use msi_types::DeviceId;
use std::num::NonZeroU16;

#[test]
fn the_embedded_machine_delivers_every_message() {
    let report = deliver(&harbour());
    assert_delivered(&report, 60);
    assert!(report.totals.moves > 0);
    assert_eq!(report.notes, [] as [&str; 0]);
    for kind in [DeviceKind::PciMsi, DeviceKind::PciMsix, DeviceKind::Platform] {
        assert!(report.devices.iter().any(|device| device.kind == kind), "{kind}");
    }
}

#[test]
fn boards_with_an_unusual_gic_deliver_every_message() {
    let mut without_cells = board_trees::bare(4, 1);
    without_cells.controllers[0].msi_cells = Fact::stated(0);
    without_cells.hosts = vec![board_trees::host(0, MsiRouting::parent(its(0)))];
    assert_delivered(&deliver(&flashed_with_findings(&without_cells)), 60);
    let with = |cpus, change: fn(&mut Gic)| {
        let mut board = board_trees::bridged(cpus, 1);
        change(board.gic.as_mut().unwrap());
        board
    };
    let waker_of_firmware =
        with(4, |gic| gic.compatible.insert(0, "qcom,msm8996-gic-v3".to_owned()));
    let several_regions = with(6, |gic| {
        let regions = [(0x0900_0000, 0x4_0000), (0x0910_0000, 0x2_0000), (0x0920_0000, 0x8_0000)];
        gic.redistributors = regions.map(|(base, size)| Fact::stated(region(base, size))).to_vec();
    });
    let stride = with(4, |gic| {
        gic.redistributors = vec![Fact::stated(region(0x0900_0000, 0x10_0000))];
        gic.redistributor_stride = Some(Fact::stated(0x4_0000));
    });
    for board in [waker_of_firmware, several_regions, stride] {
        let report = deliver(&flashed(&board));
        assert_delivered(&report, 60);
        assert_eq!(report.cpus, board.cpus.len());
    }
}

#[test]
fn other_gic_views_deliver_every_message() {
    let (security, targets) = (SecurityView::NonSecure, TargetAddresses::Physical);
    for options in [
        BuildOptions { security, ..BuildOptions::default() },
        BuildOptions { targets, ..BuildOptions::default() },
    ] {
        assert_delivered(&deliver_with(&harbour(), &options, 60), 60);
    }
}

#[test]
fn each_of_several_itses_serves_its_own_host_bridge() {
    let board = flashed(&board_trees::bridged(4, 3));
    let report = deliver(&board);
    assert_delivered(&report, 60);
    for controller in &board.controllers {
        assert!(report.devices.iter().any(|device| device.controller == controller.id.as_str()));
    }
}

#[test]
fn platform_devices_use_the_device_id_in_their_msi_cell() {
    // The last one has more than 16 bits.
    let expected = [0x40, 0x41, 0x42, 0x00ab_cdef];
    let mut board = board_trees::bare(4, 2);
    let device = |(id, index): (u32, usize)| {
        let routing = MsiRouting::device(its(index % 2), DeviceId::new(id));
        board_trees::device(0x0b00_0000 + index as u64 * 0x1000, routing)
    };
    board.devices = expected.into_iter().zip(0..).map(device).collect();
    let report = deliver(&flashed(&board));
    assert_delivered(&report, 60);
    let ids: Vec<_> = report.devices.iter().map(|device| device.device_id.get()).collect();
    assert_eq!(ids, expected);
}

#[test]
fn the_machine_is_limited_to_the_requested_cpus() {
    let options = BuildOptions { cpus: NonZeroU16::new(3), ..BuildOptions::default() };
    let report = deliver_with(&harbour(), &options, 40);
    assert_delivered(&report, 40);
    assert_eq!(report.cpus, 3);
    assert!(
        report.devices.iter().flat_map(|device| &device.vectors).all(|vector| vector.cpu.get() < 3)
    );
}

#[test]
fn a_host_bridge_without_ecam_delivers_messages_and_is_noted() {
    let mut board = harbour();
    let config = board.hosts[0].config.as_mut().unwrap();
    config.value = gic_firmware::ConfigAccess::Registers(config.value.region());
    let report = deliver(&board);
    assert_delivered(&report, 60);
    assert!(
        report.notes[0]
            .starts_with("/pcie@20000000: its configuration space is not accessed through ECAM")
    );
}
