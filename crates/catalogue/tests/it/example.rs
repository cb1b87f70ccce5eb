//! A sound catalogue.

use std::time::Duration;

use forecastle_catalogue::{
    Accepts, Catalogue, CatalogueErrors, ExitMeaning, InputKind, Invoke, Over, ParameterValue, RenderError, Retry,
    ShardBounds, TypedTask, Unit, UnitName, Work,
};
use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis, Priority, ResourceVector};

pub(crate) const ARCHIVE: &str = include_str!("archive.toml");

pub(crate) fn archive() -> Catalogue {
    Catalogue::parse(ARCHIVE).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn every_entry_arrives() {
    let catalogue = archive();
    let archive = catalogue.request_type("archive").unwrap();
    assert_eq!(archive.fleet, "default");
    assert_eq!(archive.input, InputKind::Directory);
    assert_eq!(archive.priority, Priority::Standard);
    assert_eq!(archive.deadline, Some(Duration::from_hours(1)));
    assert_eq!(archive.max_items, 100_000);
    let work = archive.stage("work").unwrap();
    assert_eq!(work.over, Over::Items);
    assert_eq!(work.units, ["checksum", "compress", "index"].map(|name| UnitName::new(name).unwrap()));
    assert_eq!(work.shard, ShardBounds { target_bytes: Bytes::mib(16), max_items: 64, max_shards: 2000 });

    let compress = catalogue.unit("compress").unwrap();
    assert_eq!(compress.reserve.vector.memory, Bytes::mib(64));
    assert_eq!(compress.reserve.vector.io, BytesPerSecond::mib(10));
    assert_eq!(compress.reserve.duration, Duration::from_secs(10));
    assert_eq!(compress.timeout, Duration::from_mins(10));
    assert_eq!(compress.retry, Retry::default());
    let command = compress.command().unwrap();
    assert_eq!(command.invoke, Invoke::Each);
    assert_eq!(command.env["LC_ALL"], "C");
    assert_eq!(catalogue.unit("index").unwrap().accepts, Accepts::Text);
    assert_eq!(catalogue.unit("checksum").unwrap().reserve.vector.named["licence"], 1);

    let manifest = catalogue.unit("manifest").unwrap();
    assert_eq!(manifest.work, Work::Task(TypedTask { name: "forecastle.manifest".to_owned(), isolated: false }));
    assert!(manifest.is_in_process() && !compress.is_in_process());
}

#[test]
fn stages_stand_after_those_they_depend_on() {
    let catalogue = archive();
    let archive = catalogue.request_type("archive").unwrap();
    let names: Vec<_> = archive.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["work", "manifest"]);
}

#[test]
fn what_is_not_declared_has_a_sound_default() {
    let catalogue = archive();
    let unit = catalogue.unit("manifest").unwrap();
    assert_eq!(unit.timeout, Unit::DEFAULT_TIMEOUT);
    assert_eq!(unit.reserve.vector, ResourceVector::new(Unit::DEFAULT_CPU, Unit::DEFAULT_MEMORY));
    assert_eq!(unit.minimum, ResourceVector::new(Unit::LEAST_CPU, Unit::LEAST_MEMORY));

    let small = "version = 1\n[types.t]\ninput = \"items\"\n\
        [[types.t.stages]]\nname = \"s\"\nunits = [\"u\"]\nover = \"items\"\nshard = { max_items = 10, max_shards = 3 }\n\
        [units.u]\ntask = \"t\"\nreserve = { memory = \"1MiB\" }\nmaximum = { cpu = \"500m\" }\ntimeout = \"5s\"\n";
    let catalogue = Catalogue::parse(small).unwrap();
    let unit = catalogue.unit("u").unwrap();
    assert_eq!(unit.minimum.memory, Bytes::mib(1), "an undeclared minimum gives way to the declared reservation");
    assert_eq!(unit.reserve.vector.cpu, CpuMillis(500), "an undeclared reservation gives way to the declared maximum");
    assert_eq!(unit.reserve.duration, Duration::from_secs(5), "nothing is expected to outlast its timeout");
    let request_type = catalogue.request_type("t").unwrap();
    assert_eq!(request_type.max_items, 30, "no more items than the shards can hold");
    assert_eq!(request_type.fleet, "default");
    assert_eq!(request_type.deadline, None);
}

#[test]
fn learned_reservations_are_kept_within_the_clamps() {
    let catalogue = archive();
    let compress = catalogue.unit("compress").unwrap();
    let tiny = compress.clamp(&ResourceVector::ZERO.with_named("licence", 3));
    assert_eq!(tiny, ResourceVector::new(CpuMillis(50), Bytes::mib(4)).with_named("licence", 3));
    let huge = ResourceVector::new(CpuMillis::cores(64), Bytes::gib(64)).with_io(BytesPerSecond::mib(900));
    let expected = ResourceVector::new(CpuMillis::cores(4), Bytes::gib(2)).with_io(BytesPerSecond::mib(900));
    assert_eq!(compress.clamp(&huge), expected);
}

#[test]
fn scratch_is_declared_and_bounded_as_the_others_are() {
    let unit = |sizes: &str| {
        let text = format!("version = 1\n[units.u]\ntask = \"t\"\n{sizes}\n");
        Catalogue::parse(&text).unwrap_or_else(|errors| panic!("{errors}")).unit("u").unwrap().clone()
    };
    let plain = unit("");
    assert_eq!((plain.reserve.vector.scratch, plain.minimum.scratch), (Bytes::ZERO, Bytes::ZERO));
    assert_eq!(plain.maximum.scratch, None);
    let sized =
        unit("reserve = { scratch = \"10GiB\" }\nminimum = { scratch = \"1GiB\" }\nmaximum = { scratch = \"50GiB\" }");
    assert_eq!(sized.reserve.vector.scratch, Bytes::gib(10));
    let clamped = |scratch| sized.clamp(&ResourceVector::ZERO.with_scratch(scratch)).scratch;
    assert_eq!([0, 7, 99].map(Bytes::gib).map(clamped), [1, 7, 50].map(Bytes::gib));
    let least = unit("minimum = { scratch = \"2GiB\" }");
    assert_eq!(least.reserve.vector.scratch, Bytes::gib(2), "an undeclared reservation gives way to the minimum");
}

#[test]
fn arguments_are_rendered_without_a_shell() {
    let catalogue = archive();
    let value = |name: &str| match name {
        "level" => Some(ParameterValue::Integer(9).to_string()),
        "input" => Some("/data/a b; rm -rf /".to_owned()),
        "name" => Some("a b; rm -rf /".to_owned()),
        _ => None,
    };
    let compress = catalogue.unit("compress").unwrap().command().unwrap();
    let arguments = compress.arguments(&[], &value).unwrap();
    assert_eq!(arguments, ["/usr/bin/xz", "-9", "--stdout", "/data/a b; rm -rf /"]);
    assert_eq!(compress.stdout.as_ref().unwrap().render(&value).unwrap(), "a b; rm -rf /.xz");

    let checksum = catalogue.unit("checksum").unwrap().command().unwrap();
    let inputs = ["/data/x y".to_owned(), "/data/z".to_owned()];
    assert_eq!(checksum.arguments(&inputs, &value).unwrap(), ["/usr/bin/sha256sum", "--", "/data/x y", "/data/z"]);
    let nul = checksum.arguments(&["/a\0b".to_owned()], &value);
    assert_eq!(nul, Err(RenderError::Nul { name: "inputs".to_owned() }));
    let missing = compress.arguments(&[], &|_| None);
    assert_eq!(missing, Err(RenderError::Missing { name: "level".to_owned() }));
}

#[test]
fn exit_codes_have_a_meaning() {
    let catalogue = archive();
    let compress = catalogue.unit("compress").unwrap().command().unwrap();
    assert_eq!(compress.exit_meaning(0), ExitMeaning::Succeeded);
    assert_eq!(compress.exit_meaning(1), ExitMeaning::Retryable, "without a list every failure may pass");
    assert_eq!(compress.exit_meaning(-1), ExitMeaning::Retryable);

    let listed = ARCHIVE
        .replace("successful_exit_codes = [0]", "successful_exit_codes = [0, 2]")
        .replace("retryable_exit_codes = []", "retryable_exit_codes = [75]");
    let catalogue = Catalogue::parse(&listed).unwrap();
    let compress = catalogue.unit("compress").unwrap().command().unwrap();
    assert_eq!(compress.exit_meaning(2), ExitMeaning::Succeeded);
    assert_eq!(compress.exit_meaning(75), ExitMeaning::Retryable);
    assert_eq!(compress.exit_meaning(1), ExitMeaning::Permanent);
    assert_eq!(compress.exit_meaning(256), ExitMeaning::Permanent, "256 is not read as 0");
}

#[test]
fn parameters_are_checked_by_the_type() {
    let catalogue = archive();
    let archive = catalogue.request_type("archive").unwrap();
    let given = serde_json::json!({ "level": 3.0 });
    let values = archive.check_parameters(given.as_object().unwrap()).unwrap();
    assert_eq!(values["level"], ParameterValue::Integer(3));
    let errors = archive.check_parameters(serde_json::json!({ "level": 99 }).as_object().unwrap()).unwrap_err();
    assert_eq!(errors[0].to_string(), "parameters.level: 99 is more than the maximum 22");
}

#[test]
fn an_unknown_name_is_answered_with_what_was_probably_meant() {
    let catalogue = archive();
    let error = catalogue.request_type("archvie").unwrap_err();
    assert_eq!(error.to_string(), "there is no request type `archvie`; did you mean `archive`?");
    assert_eq!(catalogue.unit("x").unwrap_err().to_string(), "there is no unit `x`");
    assert!(catalogue.unit(&"x".repeat(10_000)).unwrap_err().to_string().len() < 100);
}

#[test]
fn the_hash_covers_what_workers_must_agree_on_and_nothing_else() {
    let hash = |text: &str| Catalogue::parse(text).unwrap_or_else(|errors| panic!("{errors}")).hash().to_owned();
    let original = hash(ARCHIVE);
    assert!(original.len() == 64 && original.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{original}");
    for (from, to) in [
        ("# Before the stage", "# Ahead of the stage"),
        ("Compresses each file.", "Makes each file small."),
        ("memory = \"64MiB\"", "memory = \"65MiB\""),
        ("errors = 2", "errors = 3"),
        ("timeout = \"10min\"", "timeout = \"11min\""),
        ("maximum = 22", "maximum = 9\ndescription = \"\""),
    ] {
        let text = if from == "maximum = 22" {
            ARCHIVE.replace("maximum = 22", "maximum = 20")
        } else {
            ARCHIVE.replace(from, to)
        };
        assert_ne!(text, ARCHIVE, "{from}");
        assert_eq!(hash(&text), original, "{from}");
    }
    for (from, to) in [
        ("\"--stdout\"", "\"--keep\""),
        ("{name}.xz", "{name}.lzma"),
        ("LC_ALL = \"C\"", "LC_ALL = \"C.UTF-8\""),
        ("successful_exit_codes = [0]", "successful_exit_codes = [0, 2]"),
        ("retryable_exit_codes = []", "retryable_exit_codes = [1]"),
        ("task = \"forecastle.manifest\"", "task = \"forecastle.manifest\"\nisolated = true"),
        ("forecastle.manifest", "forecastle.summary"),
    ] {
        let text = ARCHIVE.replace(from, to);
        assert_ne!(text, ARCHIVE, "{from}");
        assert_ne!(hash(&text), original, "{from}");
    }
}

#[test]
fn a_catalogue_is_loaded_from_a_file_and_an_unreadable_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalogue.toml");
    let missing = Catalogue::load(&path).unwrap_err();
    assert!(matches!(missing, CatalogueErrors::Unreadable { .. }));
    assert!(missing.to_string().contains("catalogue.toml"), "{missing}");
    std::fs::write(&path, ARCHIVE).unwrap();
    assert_eq!(Catalogue::load(&path).unwrap(), archive());
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(Catalogue::load(&path).unwrap_err(), CatalogueErrors::Unreadable { .. }));
}
