const rows = window.gestaltCost || [];
if (rows.length) {
  const keys = [['seconds', 'seconds'], ['cpu_seconds', 'CPU seconds'], ['peak_memory_mib', 'peak memory, MiB'],
    ['frames_per_second', 'frames / s']];
  const show = value => typeof value === 'number' ? value.toLocaleString('en', {minimumFractionDigits: 1, maximumFractionDigits: 1}) : '\u2013';
  const table = document.createElement('table');
  const line = (cells, kind) => {
    const row = table.insertRow();
    cells.forEach((text, place) => {
      const cell = document.createElement(kind);
      cell.textContent = text;
      if (place) cell.className = 'number';
      row.append(cell);
    });
    return row;
  };
  line(['stage', ...keys.map(key => key[1])], 'th');
  rows.forEach(entry => line([entry.stage, ...keys.map(key => show(entry[key[0]]))], 'td'));
  const total = key => rows.reduce((sum, entry) => sum + (entry[key] || 0), 0);
  line(['all', show(total('seconds')), show(total('cpu_seconds')), '', ''], 'td').className = 'strong';
  const place = document.getElementById('cost-table');
  place.replaceChildren(table);
  place.className = 'scroll';
}
