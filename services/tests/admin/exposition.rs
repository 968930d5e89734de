//! A strict reader of Prometheus' text format 0.0.4, and of its conventions.

use std::collections::{BTreeMap, BTreeSet};

/// A number with its labels.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// What belongs to one name.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) samples: Vec<Sample>,
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|it: char| it.is_ascii_digit())
        && text.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_')
}

fn labels(mut text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").unwrap();
        assert!(is_name(name), "{name}");
        let (mut value, mut escaped, mut end) = (String::new(), false, None);
        for (at, it) in rest.char_indices() {
            match (escaped, it) {
                (true, 'n') => value.push('\n'),
                (true, '\\' | '"') => value.push(it),
                (true, _) => panic!("{rest}"),
                (false, '"') => {
                    end = Some(at);
                    break;
                }
                (false, '\\') => {}
                (false, _) => value.push(it),
            }
            escaped = !escaped && it == '\\';
        }
        assert!(found.insert(name.to_owned(), value).is_none(), "{name} twice");
        text = &rest[end.unwrap() + 1..];
        text = text.strip_prefix(',').unwrap_or(text);
    }
    found
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, inner) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}').unwrap()),
        None => (series, ""),
    };
    assert!(is_name(name), "{line}");
    Sample { name: name.to_owned(), labels: labels(inner), value: value.parse().unwrap() }
}

/// All families, by name.
pub(crate) fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let (mut current, mut helped) = (String::new(), String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && help.ends_with('.'), "{line}");
            helped = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, helped, "a family is helped first");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            let family = Family { kind: kind.to_owned(), samples: Vec::new() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} comes twice");
            current = name.to_owned();
        } else {
            let sample = sample(line);
            let family = families.get_mut(&current).unwrap();
            let is_of = match family.kind.as_str() {
                "histogram" => {
                    ["_bucket", "_sum", "_count"].iter().any(|end| sample.name == format!("{current}{end}"))
                }
                _ => sample.name == current,
            };
            assert!(is_of, "{line} is among those of {current}");
            family.samples.push(sample);
        }
    }
    families.iter().for_each(|(name, family)| check(name, family));
    families
}

fn check(name: &str, family: &Family) {
    assert_eq!(family.kind == "counter", name.ends_with("_total"), "{name} is a {}", family.kind);
    assert!(family.kind != "histogram" || name.ends_with("_seconds"), "{name}");
    assert!(name.starts_with("flotilla_") || name.starts_with("process_"), "{name}");
    let series: BTreeSet<_> = family.samples.iter().map(|it| (&it.name, &it.labels)).collect();
    assert_eq!(series.len(), family.samples.len(), "{name} has a series twice");
    assert!(family.samples.iter().all(|it| it.value >= 0.0 && it.value.is_finite()), "{name}");
    if family.kind == "histogram" {
        check_histogram(name, &family.samples);
    }
}

fn check_histogram(name: &str, samples: &[Sample]) {
    let mut of: BTreeMap<Vec<(String, String)>, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        let labels = sample.labels.iter().filter(|(label, _)| *label != "le");
        of.entry(labels.map(|(label, value)| (label.clone(), value.clone())).collect())
            .or_default()
            .push(sample);
    }
    for samples in of.into_values() {
        let buckets: Vec<_> = samples.iter().filter(|it| it.name.ends_with("_bucket")).collect();
        let bound = |it: &Sample| match it.labels["le"].as_str() {
            "+Inf" => f64::INFINITY,
            number => number.parse().unwrap(),
        };
        assert!(
            buckets.is_sorted_by(|one, next| bound(one) < bound(next) && one.value <= next.value),
            "{name}"
        );
        let count = samples.iter().find(|it| it.name.ends_with("_count")).unwrap();
        let last = buckets.last().unwrap();
        assert!(bound(last).is_infinite() && last.value == count.value, "{name}");
        assert!(samples.iter().any(|it| it.name.ends_with("_sum")), "{name}");
    }
}

/// The sum of a family's samples that have these labels.
pub(crate) fn sum(families: &BTreeMap<String, Family>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let family = name.strip_suffix("_count").filter(|family| families.contains_key(*family)).unwrap_or(name);
    let family = families.get(family).unwrap_or_else(|| panic!("there is no {name}"));
    let has = |it: &&Sample| {
        labels.iter().all(|(label, value)| it.labels.get(*label).is_some_and(|it| it == value))
    };
    family.samples.iter().filter(|it| it.name == name).filter(has).map(|it| it.value).sum()
}
