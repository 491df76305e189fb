//! Machines with an injected defect. The verdict must report the defect on every embedded machine.

use doorbell_machine::{
    BuildOptions, DeviceKind, Fault, Report, RunOptions, build, embedded, run, simulate,
};
use std::num::NonZeroU32;

const MACHINES: [&str; 6] = ["harbour", "lagoon", "estuary", "cove", "hyperv", "marina"];

fn machine(name: &str, fault: Fault) -> doorbell_machine::Machine {
    build(&crate::embedded(name), &BuildOptions { fault, ..BuildOptions::default() }).unwrap()
}

fn options(messages: u32) -> RunOptions {
    RunOptions { messages, ..RunOptions::default() }
}

/// Runs the machine without threads.
fn simulated(name: &str, fault: Fault, messages: u32) -> Report {
    simulate(machine(name, fault), &options(messages)).unwrap()
}

fn on_threads(name: &str, fault: Fault, messages: u32) -> Report {
    run(machine(name, fault), &options(messages), &mut |_| {}).unwrap()
}

const fn every(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

#[test]
fn the_list_of_machines_is_complete() {
    assert_eq!(
        embedded::machines().iter().map(|machine| machine.name).collect::<Vec<_>>(),
        MACHINES
    );
}

/// If a single pending bit moves with the vector, a CPU does not take interrupts of a vector that
/// has moved away from it. With direct LPIs (on `lagoon`), the pending bit stays at the old CPU: if
/// the vector moves and its next message is sent before the old CPU looks for interrupts, the
/// resulting run cannot be distinguished from a run on a wrong CPU.
#[test]
fn an_interrupt_resent_after_its_handler_is_spurious_on_threads() {
    let number = 100;
    for name in MACHINES {
        let mut options = options(40);
        options.disturbances.retain(|_| name != "lagoon");
        let report = run(machine(name, Fault::RePends(every(number))), &options, &mut |_| {});
        let totals = report.unwrap().totals;
        assert!(totals.spurious > 0 && !totals.is_clean(), "{name}, each {number}th: {totals:?}");
        assert_eq!((totals.lost, totals.wrong_cpu), (0, 0), "{name}, each {number}th: {totals:?}");
    }
}

#[test]
fn a_direct_lpi_resent_after_its_handler_is_spurious_despite_moves() {
    let totals = on_threads("lagoon", Fault::RePends(every(100)), 100).totals;
    assert!(totals.spurious > 0 && !totals.is_clean(), "{totals:?}");
    assert_eq!(totals.lost, 0, "{totals:?}");
}

#[test]
fn an_interrupt_resent_after_its_handler_is_spurious_in_simulation() {
    for (name, number) in MACHINES.into_iter().flat_map(|name| [(name, 200), (name, 500)]) {
        let totals = simulated(name, Fault::RePends(every(number)), 100).totals;
        assert!(totals.spurious > 0 && !totals.is_clean(), "{name}, each {number}th: {totals:?}");
    }
}

#[test]
fn a_handler_that_is_skipped_loses_messages() {
    for name in MACHINES {
        let totals = simulated(name, Fault::SkipsHandlers(every(300)), 100).totals;
        assert!(totals.lost > 0 && !totals.is_clean(), "{name}: {totals:?}");
    }
    let totals = on_threads("harbour", Fault::SkipsHandlers(every(300)), 100).totals;
    assert!(totals.lost > 0 && !totals.is_clean(), "{totals:?}");
}

#[test]
fn refused_devices_make_the_verdict_unclean() {
    for name in MACHINES {
        let report = on_threads(name, Fault::RefusesHalf, 20);
        let (half, totals) = (report.devices.len() as u64 / 2, report.totals);
        assert_eq!(totals.refused, half, "{name}: {totals:?}");
        assert!(totals.is_delivered() && !totals.is_clean(), "{name}: {totals:?}");
    }
}

#[test]
fn devices_short_of_vectors_make_the_verdict_unclean() {
    for name in MACHINES {
        let report = on_threads(name, Fault::GrantsOne, 20);
        let short = report.devices.iter().filter(|device| device.useful_minimum > 1).count() as u64;
        assert!(short > 0, "{name} has devices that need several vectors");
        let totals = report.totals;
        assert_eq!(totals.short, short, "{name}: {totals:?}");
        assert!(totals.is_delivered() && !totals.is_clean(), "{name}: {totals:?}");
    }
}

#[test]
fn messages_without_a_doorbell_make_the_verdict_unclean() {
    for name in MACHINES {
        let totals = simulated(name, Fault::WrongDoorbell, 5).totals;
        assert!(totals.no_doorbell > 0 && !totals.is_clean(), "{name}: {totals:?}");
        assert_eq!(totals.lost, totals.vectors, "{name}: {totals:?}");
    }
}

fn assert_functions_stay_off(report: &Report) {
    let functions = report.devices.iter().filter(|device| device.kind == DeviceKind::PciMsix);
    assert_eq!(report.totals.refused, functions.clone().count() as u64, "{:?}", report.totals);
    for function in functions {
        let reason = function.refused.as_deref().unwrap();
        assert!(reason.contains("never able to send"), "{}: {reason}", function.id);
        assert!(function.vectors.iter().all(|vector| vector.sent == 0), "{}", function.id);
    }
    assert!(!report.totals.is_clean());
}

#[test]
fn a_simulation_names_functions_that_never_send() {
    for name in MACHINES {
        let simulation = simulate(machine(name, Fault::StaysOff), &options(20));
        assert_functions_stay_off(&simulation.unwrap());
    }
}

#[test]
fn a_run_with_threads_reports_functions_that_never_send_messages() {
    let report = run(machine("harbour", Fault::StaysOff), &options(20), &mut |_| {});
    assert_functions_stay_off(&report.unwrap());
}
