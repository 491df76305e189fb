//! Descriptions that cannot be turned into a machine that delivers messages.

use crate::board_trees::{self, its};
use crate::harbour;
use doorbell_machine::{BuildOptions, ControllerChoice, Refusal, build};
use gic_firmware::{Description, Fact, GicVersion, MsiRouting, Region, Status};

fn refused(board: &Description) -> Refusal {
    build(board, &BuildOptions::default()).unwrap_err()
}

#[test]
fn no_gic() {
    assert_eq!(refused(&Description::default()), Refusal::NoGic);
}

#[test]
fn a_gicv2() {
    let mut board = harbour();
    board.gic.as_mut().unwrap().version = Fact::stated(GicVersion::V2);
    assert_eq!(
        refused(&board).to_string(),
        format!(
            "{} is a GICv2, and the machine's model is of a GICv3: it can be inspected, not run",
            board_trees::GIC
        )
    );
}

#[test]
fn a_disabled_gic() {
    let mut board = harbour();
    board.gic.as_mut().unwrap().status = Fact::stated(Status::Disabled);
    assert_eq!(refused(&board), Refusal::GicDisabled(board_trees::GIC.to_owned()));
}

#[test]
fn no_cpu() {
    let mut board = harbour();
    board.cpus.clear();
    assert_eq!(refused(&board), Refusal::NoCpus);
}

#[test]
fn no_controller() {
    let mut board = board_trees::bare(4, 0);
    board.hosts.clear();
    assert_eq!(
        refused(&board),
        Refusal::NoController { wanted: ControllerChoice::Auto, others: Vec::new() }
    );
}

#[test]
fn a_disabled_its_is_none() {
    let mut board = board_trees::bare(4, 1);
    board.hosts = vec![board_trees::host(0, MsiRouting::parent(its(0)))];
    board.controllers[0].status = Fact::stated(Status::Disabled);
    assert_eq!(
        refused(&board),
        Refusal::NoController { wanted: ControllerChoice::Auto, others: Vec::new() }
    );
}

#[test]
fn an_its_that_nobody_refers_to() {
    let board = board_trees::bare(4, 1);
    let names = vec![board.controllers[0].id.to_string()];
    assert_eq!(refused(&board), Refusal::NothingRings { controllers: names });
}

#[test]
fn controllers_that_overlap_are_named() {
    let mut board = harbour();
    board.gic.as_mut().unwrap().distributor =
        Fact::stated(Region::new(0x0820_0000, 0x1_0000).unwrap());
    let Refusal::Overlap(overlap) = refused(&board) else { panic!("not an overlap") };
    assert_eq!(overlap.first, "the distributor");
    assert!(overlap.second.ends_with("msi-controller@8200000"), "{overlap}");
}
