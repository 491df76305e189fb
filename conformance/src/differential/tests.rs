use super::*;

const LIMITS: Limits = Limits { cases: 1000, deadline: None, seed: 7 };

#[test]
fn a_model_never_differs_from_itself() {
    let (mut one, mut other) = (Model::new().unwrap(), Model::new().unwrap());
    for finding in reset_values(&mut one, &mut other).unwrap() {
        assert_eq!(finding.mismatch, None);
    }
    for each in Family::ALL {
        let finding = family(each, Limits { cases: 100, ..LIMITS }, &mut one, &mut other).unwrap();
        assert_eq!(finding, Finding { agreed: 100, mismatch: None });
    }
}

#[test]
fn every_planted_fault_is_found() {
    let mut right = Model::new().unwrap();
    for mutant in MUTANTS {
        let found = hunt(mutant, LIMITS, &mut right).unwrap();
        assert!(found.is_some(), "{} is not found", mutant.name);
    }
}

#[test]
fn what_is_found_is_made_small() {
    let mutant = MUTANTS.iter().find(|mutant| mutant.name == "fewer priority bits").unwrap();
    let found = family(Family::Wired, LIMITS, &mut mutant.model().unwrap(), &mut Model::new().unwrap());
    let found = found.unwrap().mismatch.unwrap();
    // The two writes that every case begins with, one write of a priority, and the read that shows it.
    assert_eq!(found.script.len(), 4, "{found}");
}

#[test]
fn a_difference_leaves_out_its_own_bits_alone() {
    let values = |ours, theirs| difference::Values { ours, theirs };
    let agree = |at, width, values| difference::agree(at, width, difference::Moment::Later, values);
    // GICD_TYPER.RSS, and a neighbour.
    assert!(agree(0x0800_0004, Width::Word, values(1 << 26, 0)));
    assert!(!agree(0x0800_0004, Width::Word, values(1 << 25, 0)));
    // The upper half of GITS_TYPER holds CIL; GITS_IIDR beside it nothing.
    assert!(agree(0x0808_000c, Width::Word, values(0, 0x1f)));
    assert!(!agree(0x0808_0004, Width::Word, values(0, 0x1f)));
    // Quiescence, once both are enabled.
    assert!(agree(0x0808_0000, Width::Word, values(1, 1 << 31 | 1)));
    assert!(!agree(0x0808_0000, Width::Word, values(0, 1 << 31)));
    // A page size, before software has written it.
    assert!(!agree(0x0808_0100, Width::Double, values(0, 1 << 9)));
    assert!(difference::agree(0x0808_0108, Width::Double, difference::Moment::AfterReset, values(0, 1 << 9)));
}

#[test]
fn the_documentation_has_every_difference_and_every_input_that_is_not_sent() {
    let text = include_str!("../../../docs/differential.md");
    for difference in DIFFERENCES {
        assert!(text.contains(difference.name), "{}", difference.name);
        assert!(text.contains(difference.section), "{}", difference.section);
    }
    for input in NOT_SENT {
        assert!(text.contains(input.what), "{}", input.what);
        assert!(text.contains(input.section), "{}", input.section);
    }
}
