//! What can be seen of this machine's folders without touching them: whether the service, run by
//! the same user, could use its state folder, its spools and its archives. Makes nothing.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::config::{After, Config, Route};

/// What the service would stumble over, one line each.
pub fn look(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let state = &config.state_dir;
    if let Some(why) = unfit_to_hold(state) {
        found.push(format!(
            "state.dir {state:?} {why}; the service does not start without it"
        ));
    }
    let journal = state.join("journal.db");
    if journal.exists() && !may(&journal, Access::READ_OK | Access::WRITE_OK) {
        found.push(format!(
            "the journal {journal:?} cannot be written by this user; the service does not start"
        ));
    }
    for (name, route) in &config.routes {
        let Route { spool, after, .. } = &**route;
        if let Some(why) = unfit_spool(route) {
            found.push(format!("routes.{name}.spool {spool:?} {why}"));
        }
        if let After::Archive(folder) = after
            && route.get.is_none()
            && let Some(why) = unfit_to_hold(folder)
        {
            found.push(format!(
                "routes.{name}.archive {folder:?} {why}; delivered sources stay in the spool"
            ));
        }
    }
    found
}

/// Why a folder that the service makes where it is missing would be no use.
fn unfit_to_hold(folder: &Path) -> Option<String> {
    let nearest = folder
        .ancestors()
        .find(|path| path.symlink_metadata().is_ok())?;
    let writable = Access::WRITE_OK | Access::EXEC_OK;
    let is_it = nearest == folder;
    match nearest.metadata() {
        Ok(found) if !found.is_dir() && is_it => Some("is no folder".into()),
        Ok(found) if !found.is_dir() => Some(format!("cannot be made: {nearest:?} is no folder")),
        Ok(_) if may(nearest, writable) => None,
        Ok(_) if is_it => Some("cannot be written by this user".into()),
        Ok(_) => Some(format!(
            "cannot be made: this user may not write in {nearest:?}"
        )),
        Err(error) => Some(format!("cannot be looked at: {error}")),
    }
}

/// Why files in this spool could not be sent, or not be finished.
fn unfit_spool(route: &Route) -> Option<String> {
    let spool = &route.spool;
    match spool.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some("is missing; the service waits for it and does not make it".into())
        }
        Err(error) => Some(format!("cannot be looked at: {error}")),
        Ok(found) if !found.is_dir() => Some("is no folder".into()),
        Ok(_) if !may(spool, Access::READ_OK | Access::EXEC_OK) => {
            Some("cannot be read by this user; the service waits until it can be".into())
        }
        Ok(_) if route.get.is_some() && !may(spool, Access::WRITE_OK) => {
            Some("cannot be written by this user; nothing could be downloaded".into())
        }
        Ok(_) if route.after != After::Keep && !may(spool, Access::WRITE_OK) => {
            Some("cannot be written by this user; delivered sources could not be removed".into())
        }
        Ok(_) => None,
    }
}

fn may(path: &Path, access: Access) -> bool {
    accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
}
