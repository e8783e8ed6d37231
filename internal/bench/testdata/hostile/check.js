export function check() { for (;;); }
