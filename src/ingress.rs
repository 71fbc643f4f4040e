mod guard;
mod head;
