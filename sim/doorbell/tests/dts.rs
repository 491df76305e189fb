//! Tests of devicetree sources: where findings point, and what a source may read.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing to unwrap has failed")]

use serde_json::Value;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/dts");

/// Runs the command, which finds `dtc` where it is installed, or else in the cache of the tests.
fn output(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.args(arguments).current_dir(FOLDER);
    let path = env::var_os("PATH").unwrap_or_default();
    if !env::split_paths(&path).any(|folder| folder.join("dtc").exists()) {
        let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/cache");
        let cache = env::var_os("DOORBELL_CACHE").map_or_else(|| target.into(), PathBuf::from);
        let tools = cache.join("qemu/usr");
        assert!(tools.join("bin/dtc").exists(), "dtc is neither installed nor in {cache:?}");
        let folders = env::split_paths(&path).chain([tools.join("bin")]);
        command.env("PATH", env::join_paths(folders).unwrap());
        let libraries = format!("lib/{}-linux-gnu", env::consts::ARCH);
        command.env("LD_LIBRARY_PATH", tools.join(libraries));
    }
    command.output().unwrap()
}

/// Returns the place of each finding of a rule.
fn regions(findings: &Value, rule: &str) -> Vec<String> {
    let rows = findings.as_array().unwrap().iter().filter(|row| row["rule"] == rule);
    let region = |row: &Value| {
        let file = row["file"].as_str().unwrap();
        let [line, column, end_line, end_column] =
            ["line", "column", "end_line", "end_column"].map(|field| row[field].as_u64().unwrap());
        format!("{file}:{line}:{column}-{end_line}:{end_column}")
    };
    rows.map(region).collect()
}

#[test]
fn findings_point_at_the_text_that_sets_a_property() {
    let output = output(&["lint", "-I", "include", "--json", "board.dts"]);
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let at = |rule| regions(&findings, rule);
    let interrupts = ["board.dts:5:2-6:13", "board.dts:10:30-10:67"];
    assert_eq!(at("interrupt-specifier"), interrupts, "a macro of two lines; after a comment");
    assert_eq!(at("msi-map-overlap"), ["pcie.dtsi:4:22-5:30"], "not the comment before it");
    assert_eq!(at("its-msi-cells"), ["soc.dtsi:38:8-38:30"], "deleted: at the node");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn text_output_shows_the_source_lines_of_findings() {
    let output = output(&["lint", "-I", "include", "board.dts"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for shown in [
        "--> board.dts:5:2: /serial@9000000: interrupts\n",
        "5 | /     interrupts = <INTERRUPT(PPI,\n",
        "--> soc.dtsi:38:8: /interrupt-controller@8000000/msi-controller@8080000: #msi-cells\n",
        "38 |         its: msi-controller@8080000 {\n",
    ] {
        assert!(text.contains(shown), "{shown}\n{text}");
    }
}

#[test]
fn github_annotations_and_sarif_name_source_regions() {
    let arguments = ["lint", "-I", "include", "board.dts", "--github"];
    let said = output(&arguments);
    let said = String::from_utf8(said.stdout).unwrap();
    let place = "file=soc.dtsi,line=38,endLine=38,col=8,endColumn=29,title=its-msi-cells::";
    assert!(said.contains(place), "{said}");
    let log = output(&["lint", "-I", "include", "board.dts", "--sarif"]);
    let log: Value = serde_json::from_slice(&log.stdout).unwrap();
    let results = log["runs"][0]["results"].as_array().unwrap();
    let result = results.iter().find(|one| one["ruleId"] == "its-msi-cells").unwrap();
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "soc.dtsi");
    let region = serde_json::json!(
        { "startLine": 38, "startColumn": 8, "endLine": 38, "endColumn": 30 }
    );
    assert_eq!(place["region"], region);
}

#[test]
fn findings_of_an_overlay_point_at_its_text() {
    let folder = "../../../../../crates/gic-firmware/tests/overlay";
    let [base, overlay] = ["base.dts", "first.dtso"].map(|file| format!("{folder}/{file}"));
    let output = output(&["lint", "--json", &base, &overlay]);
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let place = format!("{overlay}:5:2-5:24");
    assert_eq!(regions(&findings, "interrupt-specifier"), [place]);
}

#[test]
fn inspect_explain_graph_report_diff_and_run_read_devicetree_sources() {
    let include = ["-I", "include", "board.dts"];
    for (command, more) in [
        (&["inspect"][..], &[][..]),
        (&["explain"], &["01:00.0"]),
        (&["graph"], &[]),
        (&["report", "--no-run"], &[]),
        (&["diff", "board.dts"], &[]),
        (&["run", "--simulate", "--messages", "1", "--dtb"], &[]),
    ] {
        let arguments: Vec<&str> = match command {
            ["run", ..] => [command, &["board.dts", "-I", "include"]].concat(),
            _ => [command, &include, more].concat(),
        };
        let output = output(&arguments);
        assert_ne!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_source_reads_files_only_from_the_given_folders() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dts-hostile");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("own")).unwrap();
    fs::write(folder.join("secret.dtsi"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret.dtsi", folder.join("own/link.dtsi")).unwrap();
    let secret = folder.join("secret.dtsi").display().to_string();
    for text in [
        "#include \"../secret.dtsi\"".to_owned(),
        "#include \"link.dtsi\"".to_owned(),
        format!("#include \"{secret}\""),
        format!("#define S \"{secret}\"\n#include S"),
        format!("#/**/inc\\\nlude <{secret}>"),
        format!("/* #if 0\n*/ #include \"{secret}\""),
        format!("#import \"{secret}\""),
        format!("#if __has_include(\"{secret}\")\n#endif"),
        format!("/include/ \"{secret}\""),
        format!("/ {{ a = /incbin/(\"{secret}\"); }};"),
        format!("#define S /incbin/\n/ {{ a = S(\"{secret}\", 0, 2); }};"),
        format!("/ {{ a = '\"', /incbin/ (\"{secret}\") ; }};"),
        "#include \"/dev/zero\"".to_owned(),
        format!("\0#include \"{secret}\""),
        format!("#\0include \"{secret}\""),
        format!("a\r#include \"{secret}\""),
        format!("\"\\\\\n\" /*\n#include \"{secret}\"\n\" */"),
        format!("\" /*\n/*/\n#include \"{secret}\""),
        format!("_Pragma(\"GCC dependency \\\"{secret}\\\"\")"),
        format!("#define C(a, b) a##b\n#if C(__has_, include)(\"{secret}\")\n#endif"),
        format!("#define C(a, b, c) a##b##c\n#if C(_, _has, _include)(\"{secret}\")\n#endif"),
    ] {
        let path = folder.join("own/board.dts");
        fs::write(&path, format!("/dts-v1/;\n{text}\n/ {{ }};\n")).unwrap();
        let output = output(&["lint", path.to_str().unwrap()]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}\n{said}");
        let reasons = ["`-I DIR`", "not allowed", "control character", "does not end"];
        let reason = reasons.iter().any(|reason| said.contains(reason));
        assert!(reason && said.contains("board.dts:"), "{text}\n{said}");
    }
}

/// Linux's `armada-cp11x.dtsi` builds its labels this way.
#[test]
fn a_source_may_paste_preprocessor_tokens() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dts-pasted");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("board.dts");
    let text = "#define PASTE(a, b) a##b\n#define LABEL(name) PASTE(_, name)\n";
    fs::write(&path, format!("/dts-v1/;\n{text}/ {{ LABEL(a): node {{ }}; }};\n")).unwrap();
    let output = output(&["graph", path.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("cannot compile"), "{said}");
}

/// `dtc` reads these files without `cpp`, and has different rules for comments and strings.
#[test]
fn an_included_file_reads_files_only_from_the_given_folders() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dts-hostile-part");
    fs::create_dir_all(folder.join("own")).unwrap();
    fs::write(folder.join("secret.dtsi"), "secret").unwrap();
    let secret = folder.join("secret.dtsi").display().to_string();
    for text in [
        format!("/ {{ model = \"a\n\"; x = &{{/*}}; }}; /include/ \"{secret}\"\n\" */"),
        format!("/ {{ a = <'/*\\'>; }};\n/include/ \"{secret}\"\n/* */"),
        format!("/* */ /plugin//* a\n/*/ ;\n/include/ \"{secret}\""),
        format!("/*\n*/ /include/\n\"{secret}\""),
        "/*".to_owned(),
        "\"".to_owned(),
    ] {
        fs::write(folder.join("own/part.dtsi"), &text).unwrap();
        let path = folder.join("own/board.dts");
        fs::write(&path, "/dts-v1/;\n/include/ \"part.dtsi\"\n/ { };\n").unwrap();
        let output = output(&["lint", path.to_str().unwrap()]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}\n{said}");
        let reasons = ["`-I DIR`", "not allowed", "does not end"];
        assert!(reasons.iter().any(|reason| said.contains(reason)), "{text}\n{said}");
    }
}

#[test]
fn unterminated_quotes_are_refused_quickly() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dts-quotes");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("part.dtsi"), "\\'".repeat(1 << 20)).unwrap();
    let path = folder.join("board.dts");
    fs::write(&path, "/dts-v1/;\n/include/ \"part.dtsi\"\n").unwrap();
    let before = std::time::Instant::now();
    let output = output(&["lint", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(before.elapsed().as_secs() < 60, "{:?}", before.elapsed());
}

#[test]
fn unbounded_macro_or_include_expansion_is_refused() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dts-growth");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("board.dts");
    let macros: Vec<_> = (1..40).map(|n| format!("#define M{n} M{0} M{0}\n", n - 1)).collect();
    let macros = macros.concat();
    let itself = "#include \"board.dts\"\n".repeat(2);
    let texts = [(format!("{macros}M39"), "`cpp`"), (itself, "includes itself")];
    for (text, reason) in texts {
        fs::write(&path, format!("/dts-v1/;\n{text}\n")).unwrap();
        let output = output(&["lint", path.to_str().unwrap()]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn a_missing_compiler_is_named_with_its_package() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dts-no-tools");
    fs::create_dir_all(&folder).unwrap();
    let _ = fs::remove_file(folder.join("sh"));
    std::os::unix::fs::symlink("/bin/sh", folder.join("sh")).unwrap();
    let tables = concat!(env!("CARGO_MANIFEST_DIR"), "/../machine/machines/marina/iort.asl");
    for (source, tool, package) in [("board.dts", "cpp", "cpp"), (tables, "iasl", "acpica-tools")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
        command.args(["lint", "-I", "include", source]).current_dir(FOLDER);
        let output = command.env("PATH", &folder).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let expected = format!("needs `{tool}`, which is in Debian's package `{package}`");
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn doorbell_refuses_unsupported_acpi_sources() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("asl");
    fs::create_dir_all(&folder).unwrap();
    for (name, text, refusal) in [
        ("apic.asl", "/* x */\n#include \"mcfg.asl\"\n", "apic.asl:2: expand preprocessor"),
        ("apic.dsl", "// x\n definitionblock (\"\") { Include (\"/etc/passwd\") }", "apic.dsl:2: "),
        ("tables.asl", "Signature : \"IORT\"", "name the source after its table"),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        let output = output(&["inspect", path.to_str().unwrap()]);
        fs::remove_file(path).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(refusal), "{said}");
    }
}

#[test]
fn a_mistake_in_a_source_is_reported_at_its_line() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dts-mistake");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("board.dts");
    fs::write(&path, "/dts-v1/;\n/ {\n\treg = <1\n};\n").unwrap();
    let path = path.to_str().unwrap();
    let output = output(&["inspect", path]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains(&format!("{path}:4.1")), "{said}");
}
