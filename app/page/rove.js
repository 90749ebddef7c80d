// Some controls as one stop of the Tab key: arrows go from one to the next.

function rove(controls) {
  for (const control of controls) {
    control.addEventListener('focus', () => controls.forEach(each => { each.tabIndex = each === control ? 0 : -1; }));
    control.addEventListener('blur', () => controls.forEach(each => { each.tabIndex = 0; }));
    control.addEventListener('keydown', event => {
      const upright = control.tagName === 'SELECT' ? {} : {ArrowDown: 1, ArrowUp: -1};  // a list keeps these for its choices
      const step = {ArrowRight: 1, ArrowLeft: -1, ...upright}[event.key];
      if (!step) return;
      const there = controls.filter(each => !each.disabled && each.checkVisibility({visibilityProperty: true}));
      there.at((there.indexOf(control) + step) % there.length).focus();
      event.preventDefault();
    });
  }
}
