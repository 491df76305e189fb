mod kept;
mod restore;
