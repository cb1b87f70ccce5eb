//! Everything that can be wrong with a catalogue.

use forecastle_catalogue::{Catalogue, CatalogueErrors, Problem};
use proptest::prelude::*;

use crate::example::ARCHIVE;

/// The faults of a text, each as `path: problem`.
fn faults(text: &str) -> Vec<String> {
    match Catalogue::parse(text) {
        Ok(_) => Vec::new(),
        Err(CatalogueErrors::Syntax(errors)) => errors.iter().map(ToString::to_string).collect(),
        Err(errors) => errors.entries().iter().map(ToString::to_string).collect(),
    }
}

/// Changes the sound catalogue in one place and answers with the faults of the result.
fn changed(from: &str, to: &str) -> Vec<String> {
    assert_eq!(ARCHIVE.matches(from).count(), 1, "`{from}` must stand in the catalogue once");
    faults(&ARCHIVE.replace(from, to))
}

/// Each change makes exactly this one fault.
#[track_caller]
fn each_is_named(cases: &[(&str, &str, &str)]) {
    for (from, to, expected) in cases {
        assert_eq!(changed(from, to), [*expected], "{from} -> {to}");
    }
}

#[test]
fn unknown_and_missing_entries_are_named() {
    each_is_named(&[
        ("version = 1", "version = 2", "version: 2 is unknown; this program reads version 1"),
        ("version = 1", "", "version: is required"),
        (
            "version = 1",
            "version = 1\ncolour = 1",
            "colour: is no entry of this table; known are version, types, units",
        ),
        ("fleet =", "fleeet =", "types.archive.fleeet: is no entry of this table; did you mean `fleet`?"),
        ("input = \"directory\"", "", "types.archive.input: is required"),
        ("kind = \"integer\"", "", "types.archive.parameters.level.kind: is required"),
        (
            "minimum = 1\n",
            "minimun = 1\n",
            "types.archive.parameters.level.minimun: is no entry of this table; did you mean `minimum`?",
        ),
        ("over = \"once\"", "", "types.archive.stages[0].over: is required"),
        ("units = [\"manifest\"]", "", "types.archive.stages[0].units: is required"),
        (
            "max_shards = 2000",
            "max_shard = 2000",
            "types.archive.stages[1].shard.max_shard: is no entry of this table; did you mean `max_shards`?",
        ),
        (
            "lost = 5",
            "losses = 5",
            "units.compress.retry.losses: is no entry of this table; known are errors, \
            out_of_memory, timeouts, lost, backoff, maximum_attempts",
        ),
        ("task = \"forecastle.manifest\"", "", "units.manifest: needs a `command` or a `task`"),
        (
            "task = \"forecastle.manifest\"",
            "task = \"forecastle.manifest\"\ncommand = [\"/bin/true\"]\ninvoke = \"once\"",
            "units.manifest: has both `command` and `task`; leave one out",
        ),
        (
            "task = \"forecastle.manifest\"",
            "task = \"forecastle.manifest\"\nstdout = \"x\"",
            "units.manifest.stdout: only a `command` can have it",
        ),
        (
            "invoke = \"each\"",
            "invoke = \"each\"\nisolated = true",
            "units.compress.isolated: only a `task` can have it: a command always has a process of its own",
        ),
    ]);
}

#[test]
fn values_of_the_wrong_kind_are_named() {
    each_is_named(&[
        (
            "priority = \"standard\"",
            "priority = \"soon\"",
            "types.archive.priority: unknown variant `soon`, expected one of `urgent`, `standard`, `batch`",
        ),
        (
            "deadline = \"1h\"",
            "deadline = 3600",
            "types.archive.deadline: invalid type: integer `3600`, expected a duration with its unit, such as 500ms, \
             1.5s, 10min, 1h30min or 2d",
        ),
        ("deadline = \"1h\"", "deadline = \"0s\"", "types.archive.deadline: must be more than zero"),
        (
            "deadline = \"1h\"",
            "deadline = \"400d\"",
            "types.archive.deadline: 400d is more than the longest duration, 366d",
        ),
        ("max_items = 100000", "max_items = 0", "types.archive.max_items: must be at least 1"),
        (
            "fleet = \"default\"",
            "fleet = \"A b\"",
            "types.archive.fleet: `A b` is no fleet's name: use 1 to 64 of a-z, 0-9 and `-`",
        ),
        (
            "target_bytes = \"16MiB\"",
            "target_bytes = 0",
            "types.archive.stages[1].shard.target_bytes: must be at least 1",
        ),
        ("max_items = 64", "max_items = 0", "types.archive.stages[1].shard.max_items: must be at least 1"),
        (
            "memory = \"16MiB\"",
            "memory = \"16MB/s\"",
            "units.checksum.reserve.memory: `16MB/s` is not a number of bytes such as 64MiB, 1.5GiB or 1048576",
        ),
        (
            "successful_exit_codes = [0]",
            "successful_exit_codes = [0, 256]",
            "units.compress.successful_exit_codes[1]: invalid value: integer `256`, expected u8",
        ),
        (
            "successful_exit_codes = [0]",
            "successful_exit_codes = []",
            "units.compress.successful_exit_codes: must not be empty",
        ),
        (
            "retryable_exit_codes = []",
            "retryable_exit_codes = [1, 0]",
            "units.compress.retryable_exit_codes: 0 is an exit code of success",
        ),
        ("maximum_attempts = 12", "maximum_attempts = 0", "units.compress.retry.maximum_attempts: must be at least 1"),
        (
            "env = { LC_ALL = \"C\" }",
            "env = { \"A=B\" = \"C\" }",
            "units.compress.env.\"A=B\": the name of a variable must not be empty or hold `=` or NUL",
        ),
        ("env = { LC_ALL = \"C\" }", "env = { LC_ALL = \"\\u0000\" }", "units.compress.env.LC_ALL: must not hold NUL"),
        ("licence = 1", "licence = 0", "units.checksum.reserve.named.licence: must be more than zero"),
        (
            "task = \"forecastle.manifest\"",
            "task = \"../manifest\"",
            "units.manifest.task: is no task's name: use a-z, 0-9, `-` and `_`, in parts joined by dots",
        ),
    ]);
}

#[test]
fn sizes_that_contradict_each_other_are_named() {
    each_is_named(&[
        (
            "minimum = { memory = \"4MiB\"",
            "minimum = { memory = \"3GiB\"",
            "units.compress.minimum.memory: 3GiB is more than the maximum 2GiB",
        ),
        (
            "minimum = { memory = \"4MiB\"",
            "minimum = { memory = \"100MiB\"",
            "units.compress.reserve.memory: 64MiB is less than the minimum 100MiB",
        ),
        ("cpu = \"4\"", "cpu = \"0.5\"", "units.compress.reserve.cpu: 1000m is more than the maximum 500m"),
        (
            "minimum = { memory = \"4MiB\"",
            "minimum = { scratch = \"1GiB\", memory = \"4MiB\"",
            "units.compress.reserve.scratch: 512MiB is less than the minimum 1GiB",
        ),
        (
            "maximum = { memory = \"2GiB\"",
            "maximum = { scratch = \"1MiB\", memory = \"2GiB\"",
            "units.compress.reserve.scratch: 512MiB is more than the maximum 1MiB",
        ),
        ("memory = \"16MiB\"", "memory = 0", "units.checksum.reserve.memory: must be more than zero"),
        ("cpu = \"500m\"", "cpu = 99999999", "units.checksum.reserve.cpu: 99999999000m is more than 4294967295m"),
        ("timeout = \"10min\"", "timeout = \"5s\"", "units.compress.reserve.duration: 10s is more than the timeout 5s"),
        (
            "max_items = 100000",
            "max_items = 200000",
            "types.archive.max_items: 200000 items do not fit in shards whose max_items and max_shards allow 128000",
        ),
    ]);
}

#[test]
fn stages_that_cannot_be_run_are_named() {
    each_is_named(&[
        (
            "depends_on = [\"work\"]",
            "depends_on = [\"wrok\"]",
            "types.archive.stages[0].depends_on[0]: there is no stage `wrok`; did you mean `work`?",
        ),
        (
            "depends_on = [\"work\"]",
            "depends_on = [\"work\", \"work\"]",
            "types.archive.stages[0].depends_on[1]: `work` is named twice",
        ),
        (
            "depends_on = [\"work\"]",
            "depends_on = [\"manifest\"]",
            "types.archive.stages: these stages wait for each other: manifest -> manifest",
        ),
        (
            "over = \"items\"",
            "over = \"items\"\ndepends_on = [\"manifest\"]",
            "types.archive.stages: these stages wait for each other: manifest -> work -> manifest",
        ),
        (
            "units = [\"checksum\", \"compress\", \"index\"]",
            "units = [\"checksum\", \"compres\", \"index\", \"compress\"]",
            "types.archive.stages[1].units[1]: there is no unit `compres`; did you mean `compress`?",
        ),
        (
            "units = [\"checksum\", \"compress\", \"index\"]",
            "units = [\"checksum\", \"compress\", \"index\", \"checksum\"]",
            "types.archive.stages[1].units[3]: `checksum` is named twice",
        ),
        ("units = [\"manifest\"]", "units = []", "types.archive.stages[0].units: must not be empty"),
        (
            "input = \"directory\"",
            "input = \"none\"",
            "types.archive.stages[1].over: there are no items: the type's input is \"none\"",
        ),
        (
            "over = \"once\"",
            "over = \"once\"\nshard = { max_items = 1 }",
            "types.archive.stages[0].shard: only a stage over items can have it",
        ),
        (
            "task = \"forecastle.manifest\"",
            "command = [\"/bin/cat\", \"{input}\"]",
            "units.manifest.invoke: stage `manifest` of `archive` runs it once, without items: it must be \"once\"",
        ),
        (
            "task = \"forecastle.manifest\"",
            "command = [\"/bin/cat\", \"{inputs}\"]\ninvoke = \"once\"",
            "units.manifest.command: stage `manifest` of `archive` runs it once, without items: `{inputs}` would be empty",
        ),
    ]);
    let twice = "name = \"work\"";
    assert!(
        changed(twice, "name = \"manifest\"")
            .contains(&"types.archive.stages[1].name: `manifest` is named twice".into())
    );
    let none = "version = 1\n[types.t]\ninput = \"none\"\nstages = []";
    assert_eq!(faults(none), ["types.t.stages: must not be empty"]);
    assert_eq!(faults("version = 1\n[types.t]\ninput = \"none\""), ["types.t.stages: is required"]);
}

#[test]
fn commands_that_cannot_be_run_are_named() {
    let program = "the program must be an absolute path without placeholders, such as `/usr/bin/xz`";
    let program = format!("units.compress.command[0]: {program}");
    each_is_named(&[
        ("\"/usr/bin/xz\"", "\"xz\"", &program),
        ("\"/usr/bin/xz\"", "\"/usr/bin/{level}\"", &program),
        ("\"/usr/bin/xz\"", "\"/usr/bin/\"", &program),
        (
            "\"-{level}\"",
            "\"-{levle}\"",
            "units.compress.command[1]: `{levle}` is neither a placeholder nor a parameter of the types that use this \
             unit; did you mean `level`?",
        ),
        (
            "\"-{level}\"",
            "\"-{level\"",
            "units.compress.command[1]: `{` at character 2 is not closed; write `{{` for a brace",
        ),
        (
            "\"--stdout\"",
            "\"{inputs}\"",
            "units.compress.command[2]: `{inputs}` has a value only with invoke = \"once\"; here each item has its `{input}`",
        ),
        ("\"{inputs}\"", "\"x{inputs}\"", "units.checksum.command[2]: `{inputs}` must be an argument of its own"),
        (
            "\"{inputs}\"",
            "\"{input}\"",
            "units.checksum.command[2]: `{input}` has a value only with invoke = \"each\"; here all items are `{inputs}`",
        ),
        (
            "stdout = \"{name}.xz\"",
            "stdout = \"all.xz\"",
            "units.compress.stdout: must hold `{name}`, or the items of a shard would write the same file",
        ),
        (
            "stdout = \"{name}.xz\"",
            "stdout = \"../{name}\"",
            "units.compress.stdout: must be a path below the output folder, such as `{name}.xz`",
        ),
        (
            "stdout = \"{name}.xz\"",
            "stdout = \"/{name}\"",
            "units.compress.stdout: must be a path below the output folder, such as `{name}.xz`",
        ),
        (
            "stdout = \"{name}.xz\"",
            "stdout = \"{name}/{output}\"",
            "units.compress.stdout: `{output}` has no value in `stdout`, which is a path below the output folder",
        ),
        (
            "stdout = \"SHA256SUMS\"",
            "stdout = \"{name}\"",
            "units.checksum.stdout: `{name}` has no value in `stdout`, which is a path below the output folder",
        ),
    ]);
    let empty = changed("[\"/usr/bin/xz\", \"-{level}\", \"--stdout\", \"{input}\"]", "[]");
    assert_eq!(empty, ["units.compress.command: must not be empty: the program stands first"]);
}

#[test]
fn a_placeholder_needs_its_parameter_in_every_type_that_uses_the_unit() {
    let other = "\n[types.other]\ninput = \"directory\"\n[[types.other.stages]]\nname = \"a\"\nunits = [\"compress\"]\nover = \"items\"\n";
    assert_eq!(
        faults(&format!("{ARCHIVE}{other}")),
        ["units.compress.command[1]: `{level}` is no parameter of `other`, which uses this unit too"]
    );
    let unused = "\n[units.unused]\ncommand = [\"/bin/echo\", \"{level}\", \"{inptu}\"]\n";
    assert_eq!(
        faults(&format!("{ARCHIVE}{unused}")),
        [
            "units.unused.command[1]: `{level}` is no placeholder, and no request type uses this unit",
            "units.unused.command[2]: `{inptu}` is no placeholder, and no request type uses this unit; did you mean `input`?",
        ]
    );
    let text = ARCHIVE
        .replace("kind = \"integer\"\ndefault = 19\nminimum = 1\nmaximum = 22", "kind = \"text\"")
        .replace("\"{name}.xz\"", "\"{name}.{level}\"");
    assert_eq!(
        faults(&text),
        ["units.compress.stdout: `{level}` is a text that the producer chooses, which may not be part of a path"]
    );
}

#[test]
fn parameters_that_cannot_be_met_are_named() {
    let declared = "kind = \"integer\"\ndefault = 19\nminimum = 1\nmaximum = 22";
    let at = "types.archive.parameters.level";
    for (to, expected) in [
        ("kind = \"integer\"\ndefault = 23\nmaximum = 22", "default: 23 is more than the maximum 22"),
        ("kind = \"integer\"\ndefault = \"x\"", "default: must be a whole number, not a text"),
        ("kind = \"integer\"\nminimum = 3\nmaximum = 2", "minimum: 3 is more than the maximum 2"),
        ("kind = \"integer\"\nminimum = 1.5", "minimum: invalid type: floating point `1.5`, expected i64"),
        ("kind = \"number\"\nmaximum = inf", "maximum: must be finite"),
        ("kind = \"number\"\ndefault = nan", "default: NaN is no value for a parameter"),
        ("kind = \"flag\"\nminimum = 1", "minimum: only an integer or number can have it"),
        ("kind = \"integer\"\nchoices = [\"a\"]", "choices: only a text can have it"),
        ("kind = \"integer\"\nallow_leading_dash = true", "allow_leading_dash: only a text can have it"),
        ("kind = \"text\"\nchoices = []", "choices: must not be empty; leave it out to allow any text"),
        ("kind = \"text\"\nchoices = [\"a\", \"a\"]", "choices[1]: `a` is named twice"),
        (
            "kind = \"text\"\nchoices = [\"a\", \"-b\"]",
            "choices[1]: must not begin with `-`, which programs read as an option",
        ),
        ("kind = \"text\"\nchoices = [\"a\"]\ndefault = \"b\"", "default: must be one of a"),
        ("kind = \"date\"", "kind: unknown variant `date`, expected one of `integer`, `number`, `text`, `flag`"),
    ] {
        assert_eq!(changed(declared, to), [format!("{at}.{expected}")], "{to}");
    }
    let renamed = changed("[types.archive.parameters.level]", "[types.archive.parameters.output]");
    assert!(renamed.contains(&"types.archive.parameters.output: is the name of a placeholder; choose another".into()));
}

#[test]
fn names_that_may_not_be_are_named() {
    let rule = "use 1 to 64 of a-z, 0-9, `-` and `_`, a letter or digit first";
    let text = "version = 1\n[units.\"a b\"]\ntask = \"t\"\n";
    assert_eq!(faults(text), [format!("units.\"a b\": `a b` is no name: {rule}")]);
    let text = ARCHIVE.replace("types.archive", "types.Archive");
    assert_eq!(faults(&text), [format!("types.Archive: `Archive` is no name: {rule}")]);
    let named = changed("name = \"work\"", "name = \"W\"");
    assert!(named.contains(&format!("types.archive.stages[1].name: is no stage's name: {rule}")), "{named:?}");
}

#[test]
fn all_faults_of_a_file_are_named_at_once() {
    let text = ARCHIVE
        .replace("input = \"directory\"", "input = \"folder\"")
        .replace("deadline = \"1h\"", "deadline = \"soon\"")
        .replace("\"checksum\", \"compress\"", "\"checksums\", 7, \"compress\"")
        .replace("\"/usr/bin/xz\", \"-{level}\"", "\"xz\", \"-{lvl}\"")
        .replace("accepts = \"any\"", "accept = \"any\"")
        .replace("retry = { errors = 2", "retry = { errors = -2");
    let expected = [
        "types.archive.input: unknown variant `folder`, expected one of `directory`, `items`, `none`",
        "types.archive.deadline: `soon` is not a duration with its unit, such as 500ms, 1.5s, 10min, 1h30min or 2d",
        "types.archive.stages[1].units[1]: invalid type: integer `7`, expected a string",
        "types.archive.stages[1].units[0]: there is no unit `checksums`; did you mean `checksum`?",
        "units.compress.command[0]: the program must be an absolute path without placeholders, such as `/usr/bin/xz`",
        "units.compress.command[1]: `{lvl}` is neither a placeholder nor a parameter of the types that use this unit",
        "units.compress.retry.errors: invalid value: integer `-2`, expected u32",
        "units.compress.accept: is no entry of this table; did you mean `accepts`?",
    ];
    assert_eq!(faults(&text), expected);
    let errors = Catalogue::parse(&text).unwrap_err();
    let told = errors.to_string();
    assert!(told.starts_with("the catalogue has 8 errors:\n  types.archive.input: "), "{told}");
    assert!(matches!(errors.entries()[3].problem, Problem::UnknownName { kind: "unit", .. }));
}

#[test]
fn text_that_is_no_toml_is_located_in_every_place() {
    let errors = faults("version = \ntypes = é\n[units.x\n");
    assert!(errors.len() >= 3, "{errors:?}");
    for (error, line) in errors.iter().zip(["line 1, column ", "line 2, column ", "line 3, column "]) {
        assert!(error.starts_with(line), "{errors:?}");
    }
    let told = Catalogue::parse("version = 1\nversion = 1\n").unwrap_err().to_string();
    assert!(told.starts_with("the catalogue is not TOML:\n  line 2, column 1: "), "{told}");
}

#[test]
fn an_entry_of_another_kind_does_not_hide_the_others() {
    assert_eq!(
        faults("version = 1\ntypes = 3\nunits = [1]\n"),
        ["types: invalid type: integer `3`, expected a map", "units: invalid type: sequence, expected a map",]
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}") {
        let _ = Catalogue::parse(&text);
    }

    /// Damages the sound catalogue: a stretch is cut out and something is put there.
    #[test]
    fn no_damage_makes_it_panic_and_what_passes_is_sound(
        at in any::<prop::sample::Index>(), length in 0usize..40, put in "[a-z0-9\"={}\\[\\].\n-]{0,12}",
    ) {
        let start = at.index(ARCHIVE.len());
        let end = (start + length).min(ARCHIVE.len());
        prop_assume!(ARCHIVE.is_char_boundary(start) && ARCHIVE.is_char_boundary(end));
        let text = format!("{}{put}{}", &ARCHIVE[..start], &ARCHIVE[end..]);
        match Catalogue::parse(&text) {
            Ok(catalogue) => {
                for request_type in catalogue.types().values() {
                    for (place, stage) in request_type.stages.iter().enumerate() {
                        prop_assert!(stage.units.iter().all(|unit| catalogue.units().contains_key(unit)));
                        let earlier = &request_type.stages[..place];
                        prop_assert!(stage.depends_on.iter().all(|name| earlier.iter().any(|s| s.name == *name)));
                    }
                }
                for unit in catalogue.units().values() {
                    prop_assert_eq!(unit.clamp(&unit.reserve.vector), unit.reserve.vector.clone());
                }
            }
            Err(CatalogueErrors::Syntax(errors)) => prop_assert!(!errors.is_empty()),
            Err(errors) => prop_assert!(!errors.entries().is_empty()),
        }
    }
}
