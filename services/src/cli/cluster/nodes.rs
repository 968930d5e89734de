//! `flotilla cluster nodes`: who has what.

use super::super::Failure;
use super::Common;
use super::members::{self, Picture};
use crate::group_name::word_of;

/// What one node has.
#[derive(Debug, Default, serde::Serialize)]
struct Row {
    node: u32,
    address: String,
    cores: u16,
    up: bool,
    leads: Vec<String>,
    follows: Vec<String>,
    learns: Vec<String>,
}

impl Row {
    fn line(&self) -> String {
        let Self { node, address, cores, up, leads, follows, learns } = self;
        let state = if *up { "up" } else { "DOESN'T ANSWER" };
        let cores = if *cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") };
        let replicas = leads.len() + follows.len();
        let mut line = format!("node {node} at {address}, {cores}: {state}, {replicas} replicas");
        for (what, groups) in [("leads", leads), ("follows", follows), ("learns", learns)] {
            if !groups.is_empty() {
                line += &format!("; {what} {}", groups.join(" "));
            }
        }
        line
    }
}

fn rows(picture: &Picture) -> Vec<Row> {
    let row = |(node, listed): (&u32, &members::Listed)| {
        let mut row = Row {
            node: *node,
            address: listed.address(0),
            cores: listed.cores,
            up: picture.up.contains_key(node),
            ..Row::default()
        };
        for led in picture.groups.values() {
            let word = word_of(led.group.number);
            match &led.group {
                group if group.leader == *node => row.leads.push(word),
                group if group.voters.contains(node) => row.follows.push(word),
                group if group.learners.contains(node) => row.learns.push(word),
                _ => {}
            }
        }
        row
    };
    picture.listed.iter().map(row).collect()
}

pub(super) fn run(common: &Common) -> Result<(), Failure> {
    let picture =
        members::look(&common.asking.addr, &common.asking.login.security()?).map_err(Failure::failed)?;
    let rows = rows(&picture);
    let leaderless: Vec<String> = picture.leaderless.iter().map(|group| word_of(*group)).collect();
    if common.asking.json {
        println!("{}", serde_json::json!({ "nodes": rows, "leaderless": leaderless }));
        return Ok(());
    }
    rows.iter().for_each(|row| println!("{}", row.line()));
    if !leaderless.is_empty() {
        println!("nobody leads: {}", leaderless.join(" "));
    }
    Ok(())
}
