//! Tests for CPU hotplug, suspend and resume.

use super::setup::{Setup, lpi, request};
use crate::fake::FakeRedistributor;
use crate::fake::Hardware;
use gic_arch::Lpi;
use gic_driver::ItsError;
use msi_types::{Cpu, DeviceId, Pending};

fn cpu_off(setup: &Setup, cpu: u32, heir: u32) -> Vec<u32> {
    let moved = setup.its.cpu_off(Cpu::new(cpu), Cpu::new(heir)).unwrap();
    let world = &mut *setup.board.world();
    let binding = world.its[0].collection(&mut world.memory, u16::try_from(cpu).unwrap());
    assert_eq!(binding, None, "the collection of CPU {cpu} is still mapped");
    let leaving = &mut world.redistributors[cpu as usize];
    assert!(
        leaving.pending.is_empty(),
        "CPU {cpu} goes off with pending LPIs {:?}",
        leaving.pending
    );
    leaving.forget();
    moved.into_iter().map(Lpi::get).collect()
}

#[test]
fn cpu_off_moves_more_events_than_the_ring_holds() {
    let setup = Setup::new(Hardware { pace: Some(9), ..Hardware::default() });
    let device = setup.attach(5, 1000);
    let block = setup.map(&device, 1000, 1);
    assert_eq!(cpu_off(&setup, 1, 3).len(), 1000);
    assert_eq!(setup.send(lpi(&block, 999)), Some((3, lpi(&block, 999).get())));
}

#[test]
fn an_offline_cpu_is_refused_as_an_event_target() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 2);
    let block = setup.map(&device, 1, 0);
    cpu_off(&setup, 1, 3);
    let off = |error| matches!(error, ItsError::NotReachable(cpu, _) if cpu == Cpu::new(1));
    assert!(off(setup.its.map_events(&device, request(1, 1)).unwrap_err()));
    assert!(off(setup.its.move_event(lpi(&block, 0), Cpu::new(1)).unwrap_err()));
    assert!(off(setup.its.cpu_off(Cpu::new(0), Cpu::new(1)).unwrap_err()));
}

#[test]
fn cpu_on_reloads_all_configurations() {
    let setup = Setup::new(Hardware::default());
    cpu_off(&setup, 1, 3);
    let traffic = setup.traffic(|| setup.cpu_on(1).unwrap());
    let opcodes: Vec<_> = traffic.executed.iter().map(|command| command.opcode().name()).collect();
    assert_eq!((opcodes, traffic.writes, traffic.reads), (vec!["MAPC", "INVALL", "SYNC"], 1, 1));
}

#[test]
fn a_cpu_whose_cpu_off_timed_out_stays_a_target() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 1);
    let block = setup.map(&device, 1, 2);
    setup.board.world().set_stuck(true);
    setup.its.cpu_off(Cpu::new(1), Cpu::new(3)).unwrap_err();
    setup.board.world().set_stuck(false);
    setup.its.move_event(lpi(&block, 0), Cpu::new(1)).unwrap();
    assert_eq!(setup.send(lpi(&block, 0)), Some((1, lpi(&block, 0).get())));
}

#[test]
fn movall_moves_pending_states() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 2);
    let block = setup.map(&device, 2, 1);
    setup.send(lpi(&block, 1));
    setup.its.move_all_pending(Cpu::new(1), Cpu::new(0)).unwrap();
    assert_eq!(setup.take(0), [lpi(&block, 1).get()]);
    assert_eq!(setup.send(lpi(&block, 1)).unwrap().0, 1);
}

#[test]
fn suspension_and_resumption_keep_every_mapping() {
    for (hcc, indirect, looks_into_caches) in
        [(0, false, true), (0, true, false), (2, false, false), (4, true, true)]
    {
        let hardware = Hardware::default();
        let typer = hardware.typer.with_hcc(hcc);
        let setup = Setup::new(Hardware { typer, indirect, looks_into_caches, ..hardware });
        let device = setup.attach(5, 4);
        let blocks = [0, 1, 2, 3].map(|cpu| setup.map(&device, 1, cpu));
        cpu_off(&setup, 2, 0);

        setup.its.suspend().unwrap();
        setup.board.world().its[0].lose_power();
        setup.board.world().redistributors.iter_mut().for_each(FakeRedistributor::forget);
        setup.its.resume().unwrap();

        for (block, cpu) in blocks.iter().zip([0, 1, 0, 3]) {
            assert_eq!(setup.send(lpi(block, 0)), Some((cpu, lpi(block, 0).get())));
            assert_eq!(setup.take(cpu), [lpi(block, 0).get()]);
        }
    }
}

#[test]
fn resources_freed_during_suspension_stay_reserved() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 2);
    let free = setup.its.lpis().available();
    let block = setup.map(&device, 2, 1);
    setup.its.suspend().unwrap();
    let error = setup.its.set_pending(lpi(&block, 0), Pending::Set).unwrap_err();
    assert_eq!(error.to_string(), "its@8080000, command: suspended");
    assert!(setup.its.map_events(&device, request(1, 0)).is_err());

    setup.its.unmap_events(&device, block);
    setup.its.detach(device);
    assert_eq!(setup.its.lpis().available(), free - 2);

    setup.its.resume().unwrap();
    let other = setup.attach(6, 1);
    assert_eq!(setup.its.lpis().available(), free);
    assert!(setup.board.world().its[0].mapped.is_empty());
    let _block = setup.map(&other, 1, 1);
}

#[test]
fn mask_during_suspension_applies_after_resume() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 1);
    let block = setup.map(&device, 1, 1);
    setup.its.suspend().unwrap();
    setup.its.mask(lpi(&block, 0)).unwrap_err();
    setup.its.resume().unwrap();
    setup.send(lpi(&block, 0));
    assert_eq!(setup.take(1), [0u32; 0]);
}

#[test]
fn a_device_attached_during_suspension_can_be_mapped_after_resume() {
    let setup = Setup::new(Hardware::default());
    setup.its.suspend().unwrap();
    let device = setup.its.attach(DeviceId::new(9), 1).unwrap();
    setup.its.resume().unwrap();
    let block = setup.map(&device, 1, 1);
    assert_eq!(setup.send(lpi(&block, 0)), Some((1, lpi(&block, 0).get())));
}

#[test]
fn a_cpu_that_the_gic_did_not_turn_on_is_refused() {
    let board = crate::fake::Board::with_its(vec![Hardware::default()], 4);
    let gic = super::setup::gic(&board);
    let its = gic_driver::Its::new(gic.clone(), &super::setup::config(0)).unwrap();
    let cpu = Cpu::new(1);
    let refused = |error| matches!(error, Err(ItsError::NotReachable(at, _)) if at == cpu);

    assert!(refused(its.cpu_on(cpu)));
    super::setup::turn_on(&gic, 1);
    its.cpu_on(cpu).unwrap();
    its.cpu_on(Cpu::new(9)).unwrap_err();

    gic.cpu_off(cpu, &board.registers(cpu)).unwrap();
    assert!(refused(its.cpu_on(cpu)));
}

#[test]
fn cpu_without_enabled_lpis_is_refused() {
    let board = crate::fake::Board::with_its(vec![Hardware::default()], 4);
    let setup = Setup::on(board, &super::setup::config(0));
    super::setup::turn_on(&setup.gic, 1);
    {
        let world = &mut *setup.board.world();
        world.redistributors[1].write(&mut world.memory, gic_arch::gicr::CTLR.offset(), 4, 0);
    }
    let refused = setup.cpu_on(1);
    assert!(
        matches!(refused, Err(ItsError::NotReachable(cpu, _)) if cpu == Cpu::new(1)),
        "{refused:?}"
    );
    setup.bring_up(0);
}

#[test]
fn a_cpu_whose_cpu_on_timed_out_stays_offline() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 2);
    cpu_off(&setup, 1, 3);
    setup.board.world().set_stuck(true);
    setup.cpu_on(1).unwrap_err();
    setup.board.world().set_stuck(false);
    let refused = setup.its.map_events(&device, request(1, 1)).unwrap_err();
    assert!(matches!(refused, ItsError::NotReachable(cpu, _) if cpu == Cpu::new(1)), "{refused}");
    setup.cpu_on(1).unwrap();
    let block = setup.map(&device, 1, 1);
    assert_eq!(setup.send(lpi(&block, 0)), Some((1, lpi(&block, 0).get())));
}
