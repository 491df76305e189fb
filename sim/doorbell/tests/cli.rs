//! Output of the command for fixed input. `TRYCMD=overwrite cargo test -p doorbell --test cli`
//! accepts a change.

#[test]
fn printed_text_stays_as_it_is() {
    trycmd::TestCases::new().case("tests/cmd/*.toml");
}
